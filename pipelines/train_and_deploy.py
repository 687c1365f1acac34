"""From a table to a monitored endpoint."""

from typing import Any, Dict, List, Optional

from kfp import dsl

from longshore.components.data.load_data import load_data
from longshore.components.data.split_data import split_data
from longshore.components.deploy.deploy_model import deploy_model
from longshore.components.deploy.predict_endpoint import predict_endpoint
from longshore.components.monitor.monitor_endpoint import monitor_endpoint
from longshore.components.package.package_model import package_model
from longshore.components.register.register_model import register_model
from longshore.components.train.train_sklearn import train_sklearn
from longshore.components.validate.evaluate_model import evaluate_model
from longshore.components.validate.validate_data import validate_data
from longshore.components.validate.validate_model import validate_model


@dsl.pipeline(name="train-and-deploy")
def train_and_deploy(
    data: str,
    target: str,
    name: str = "model",
    estimator: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    task: str = "auto",
    exclude: Optional[List[str]] = None,
    schema: Optional[str] = None,
    split: str = "auto",
    test_size: float = 0.2,
    time_column: Optional[str] = None,
    group_column: Optional[str] = None,
    seed: int = 0,
    thresholds: Optional[Dict[str, float]] = None,
    metric: Optional[str] = None,
    champion_rule: str = "not_worse",
    min_gain: float = 0.0,
    registry: Optional[str] = None,
    repository: Optional[str] = None,
    platform: str = "local",
    namespace: Optional[str] = None,
    replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    port: Optional[int] = None,
    framework: str = "fastapi",
    secrets: Optional[List[str]] = None,
    storage_secret: Optional[str] = None,
    service_account: Optional[str] = None,
    server_image: Optional[str] = None,
    deploy_timeout_seconds: int = 600,
):
    """Train on a table and serve the model if it passes its thresholds and is not worse than the champion.

    Args:
        data: Path or URI of a CSV or Parquet table.
        target: Column to be predicted.
        name: Name of the model in the registry and of the service.
        estimator: Import path of a scikit-learn style class; by default a random forest.
        parameters: Arguments of that class.
        task: ``classification``, ``regression`` or ``auto``.
        exclude: Columns not to learn from.
        schema: Path or URI of a pandera schema that the table must keep.
        split: ``random``, ``stratified``, ``time``, ``group`` or ``auto``.
        test_size: Share of rows kept for testing.
        time_column: Column that orders the rows.
        group_column: Column whose values stay together.
        seed: Seed of everything random.
        thresholds: Bounds by score that the model must keep.
        metric: Score for the comparison with the champion.
        champion_rule: ``not_worse``, ``better`` or ``none``.
        min_gain: Margin for that rule.
        registry: MLflow tracking URI.
        repository: Path or URI where packaged models are kept.
        platform: Where the model is served: ``local``, on this machine, ``rest``, in pods on Kubernetes, ``kserve``,
            ``seldon`` (Seldon Core 1) or ``seldon-v2``.
        namespace: Kubernetes namespace of the service; by default that of the pipeline.
        replicas: Number of pods that serve; the least where ``max_replicas`` is given.
        max_replicas: Largest number of them on Kubernetes; by default it is fixed.
        scale_metric: What it follows: ``cpu`` or ``memory`` in percent of what each requests.
        scale_target: The value of that metric that scaling aims at.
        cpu: CPU that each requests.
        memory: Memory that each requests and is limited to.
        port: Port of the service.
        framework: Web framework of the server.
        secrets: Kubernetes Secrets with the credentials that the server needs to read the model.
        storage_secret: The one with those that KServe needs to.
        service_account: Kubernetes service account of the serving pods.
        server_image: Container image of the server.
        deploy_timeout_seconds: For the model to be up.
    """
    loaded = load_data(data=data)
    checked = validate_data(dataset=loaded.outputs["dataset"], target=target, schema=schema)
    parts = split_data(
        dataset=loaded.outputs["dataset"],
        target=target,
        method=split,
        test_size=test_size,
        seed=seed,
        time_column=time_column,
        group_column=group_column,
    ).after(checked)
    trained = train_sklearn(
        train=parts.outputs["train"],
        target=target,
        estimator=estimator,
        parameters=parameters,
        task=task,
        seed=seed,
        exclude=exclude,
    )
    scored = evaluate_model(model=trained.outputs["model"], test=parts.outputs["test"])
    judged = validate_model(
        model=trained.outputs["model"],
        test=parts.outputs["test"],
        name=name,
        thresholds=thresholds,
        metric=metric,
        champion_rule=champion_rule,
        min_gain=min_gain,
        registry=registry,
        seed=seed,
    ).after(scored)
    with dsl.If(judged.outputs["approved"] == True, name="approved"):  # noqa: E712 - kfp compiles the comparison
        registered = register_model(
            model=trained.outputs["model"], metrics=scored.outputs["metrics"], name=name, registry=registry
        )
        packaged = package_model(model=registered.outputs["registered"], repository=repository)
        served = deploy_model(
            model=packaged.outputs["packaged"],
            name=name,
            platform=platform,
            namespace=namespace,
            replicas=replicas,
            max_replicas=max_replicas,
            scale_metric=scale_metric,
            scale_target=scale_target,
            cpu=cpu,
            memory=memory,
            port=port,
            framework=framework,
            secrets=secrets,
            storage_secret=storage_secret,
            service_account=service_account,
            image=server_image,
            registry=registry,
            timeout_seconds=deploy_timeout_seconds,
        )
        sent = predict_endpoint(
            endpoint=served.outputs["endpoint"],
            model=packaged.outputs["packaged"],
            dataset=parts.outputs["test"],
        )
        monitor_endpoint(endpoint=served.outputs["endpoint"], model=packaged.outputs["packaged"]).after(sent)
