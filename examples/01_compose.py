"""Compose components into a pipeline of your own, and run it on this machine."""

from kfp import dsl

from longshore.components import deploy_model, evaluate_model, load_data, split_data, train_sklearn


@dsl.pipeline(name="penguins")
def penguins(data: str = "examples/data/penguins.csv", target: str = "species"):
    table = load_data(data=data)
    parts = split_data(dataset=table.outputs["dataset"], target=target)
    trained = train_sklearn(
        train=parts.outputs["train"],
        target=target,
        estimator="sklearn.ensemble.GradientBoostingClassifier",
        parameters={"n_estimators": 50},
    )
    evaluate_model(model=trained.outputs["model"], test=parts.outputs["test"])
    deploy_model(model=trained.outputs["model"], name="penguins")


if __name__ == "__main__":
    from longshore.runner import run_pipeline

    print(run_pipeline(penguins, {}).step("deploy-model").outputs["url"])
