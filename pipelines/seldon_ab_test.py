"""Two candidates against each other on real requests, with Seldon Core 1."""

from typing import Any, Dict, List, Optional, Tuple

from kfp import dsl

from longshore.components.data.load_data import load_data
from longshore.components.data.split_data import split_data
from longshore.components.deploy.deploy_seldon import deploy_seldon
from longshore.components.monitor.compare_revisions import compare_revisions
from longshore.components.monitor.conclude_experiment import conclude_experiment
from longshore.components.package.package_model import package_model
from longshore.components.register.register_model import register_model
from longshore.components.train.train_sklearn import train_sklearn
from longshore.components.validate.evaluate_model import evaluate_model
from longshore.components.validate.validate_data import validate_data
from longshore.components.validate.validate_model import validate_model

# kfp has no types: a PipelineTask
_Task = Any


@dsl.pipeline(name="seldon-ab-test")
def seldon_ab_test(
    data: str,
    target: str,
    prometheus: str,
    name: str = "model",
    estimator_a: Optional[str] = None,
    parameters_a: Optional[Dict[str, Any]] = None,
    estimator_b: Optional[str] = None,
    parameters_b: Optional[Dict[str, Any]] = None,
    percent_b: int = 50,
    winner: Optional[str] = None,
    window_seconds: int = 3600,
    min_requests: int = 100,
    min_rewards: int = 30,
    max_error_percent: float = 5.0,
    reward_low: float = 0.0,
    reward_high: float = 1.0,
    confidence: float = 0.95,
    matchers: Optional[Dict[str, str]] = None,
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
    namespace: Optional[str] = None,
    gateway: Optional[Dict[str, Any]] = None,
    min_replicas: int = 1,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    engine_cpu: Optional[str] = None,
    engine_memory: Optional[str] = None,
    secrets: Optional[List[str]] = None,
    storage_secret: Optional[str] = None,
    service_account: Optional[str] = None,
    server_image: Optional[str] = None,
    deploy_timeout_seconds: int = 600,
):
    """Train two candidates at once, have those that pass their gate share the requests, and keep the better one.

    ``a`` replaces what served before, and ``b`` gets its part beside it. They are observed for a while: the better
    average reward wins, or the one that is named. Clients send rewards as feedback on answers. If only one candidate
    passes its gate it is served without a test, and if none does, what served before goes on serving.

    Args:
        data: Path or URI of a CSV or Parquet table.
        target: Column to be predicted.
        prometheus: URL of the Prometheus that scrapes the service's pods.
        name: Name of the model in the registry and of the service.
        estimator_a: Import path of the first candidate's class, scikit-learn style; by default a random forest.
        parameters_a: Arguments of that class.
        estimator_b: That of the second candidate.
        parameters_b: Arguments of that class.
        percent_b: Share of the requests that ``b`` answers, from 1 to 99; ``a`` answers the rest.
        winner: ``a`` or ``b`` to promote that one at the end, whatever is observed.
        window_seconds: How long to observe.
        min_requests: So many requests each must have answered for a decision; what is not decided stays with ``a``.
        min_rewards: So many rewards each must have.
        max_error_percent: Percent of its requests that one may fail; more, and it loses at once.
        reward_low: The least that a reward can be.
        reward_high: The most that it can be.
        confidence: How sure it has to be that the difference is none of chance; with 0 the larger average wins.
        matchers: Labels that the series in Prometheus have to have, such as ``{"namespace": "models"}``.
        task: ``classification``, ``regression`` or ``auto``.
        exclude: Columns not to learn from.
        schema: Path or URI of a pandera schema that the table must keep.
        split: ``random``, ``stratified``, ``time``, ``group`` or ``auto``.
        test_size: Share of rows kept for testing.
        time_column: Column that orders the rows.
        group_column: Column whose values stay together.
        seed: Seed of everything random.
        thresholds: Bounds by score that a candidate must keep.
        metric: Score for the comparison with the champion.
        champion_rule: ``not_worse``, ``better`` or ``none``.
        min_gain: Margin for that rule.
        registry: MLflow tracking URI.
        repository: URI where packaged models are kept.
        namespace: Kubernetes namespace of the service; by default that of the pipeline.
        gateway: Where requests come in and are shared out: ``kind``, ``url`` and the other fields of ``SeldonGateway``.
        min_replicas: Pods of each candidate.
        cpu: CPU that each requests.
        memory: Memory that each requests and is limited to.
        engine_cpu: CPU that Seldon's orchestrator requests in each.
        engine_memory: Memory of it.
        secrets: Kubernetes Secrets whose keys become environment variables of the servers.
        storage_secret: The one with rclone's settings for the repository.
        service_account: Kubernetes service account of the serving pods.
        server_image: Container image of the servers.
        deploy_timeout_seconds: For each candidate to be up.
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

    def candidate(estimator: Any, parameters: Any, label: str) -> Tuple[_Task, _Task, _Task]:
        """A candidate with its score and the gate's verdict."""
        trained = train_sklearn(
            train=parts.outputs["train"],
            target=target,
            estimator=estimator,
            parameters=parameters,
            task=task,
            seed=seed,
            exclude=exclude,
        ).set_display_name(f"train {label}")
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
        return trained, scored.set_display_name(f"score {label}"), judged.set_display_name(f"judge {label}")

    def serve(trained: _Task, scored: _Task, label: str, percent: Any, *after: _Task) -> _Task:
        """Register, package and deploy a candidate."""
        registered = register_model(
            model=trained.outputs["model"], metrics=scored.outputs["metrics"], name=name, registry=registry
        ).after(*after)
        packaged = package_model(model=registered.outputs["registered"], repository=repository)
        served = deploy_seldon(
            model=packaged.outputs["packaged"],
            name=name,
            namespace=namespace,
            traffic_percent=percent,
            gateway=gateway,
            min_replicas=min_replicas,
            cpu=cpu,
            memory=memory,
            engine_cpu=engine_cpu,
            engine_memory=engine_memory,
            secrets=secrets,
            storage_secret=storage_secret,
            service_account=service_account,
            image=server_image,
            registry=registry,
            timeout_seconds=deploy_timeout_seconds,
        )
        return served.set_display_name(f"deploy {label}")

    trained_a, scored_a, judged_a = candidate(estimator_a, parameters_a, "a")
    trained_b, scored_b, judged_b = candidate(estimator_b, parameters_b, "b")
    with dsl.If(judged_a.outputs["approved"] == True, name="a-approved"):  # noqa: E712 - kfp compiles the comparison
        with dsl.If(judged_b.outputs["approved"] == True, name="both-approved"):  # noqa: E712
            first = serve(trained_a, scored_a, "a", 100)
            second = serve(trained_b, scored_b, "b", percent_b, first)
            compared = compare_revisions(
                name=name,
                prometheus=prometheus,
                window_seconds=window_seconds,
                winner=winner,
                min_requests=min_requests,
                min_rewards=min_rewards,
                max_error_percent=max_error_percent,
                reward_low=reward_low,
                reward_high=reward_high,
                confidence=confidence,
                namespace=namespace,
                matchers=matchers,
            ).after(second)
            conclude_experiment(
                name=name,
                revision=compared.outputs["revision"],
                reason=compared.outputs["reason"],
                namespace=namespace,
                registry=registry,
                timeout_seconds=deploy_timeout_seconds,
            )
        with dsl.Else(name="only-a"):
            serve(trained_a, scored_a, "a", 100)
    with dsl.Else(name="a-rejected"), dsl.If(judged_b.outputs["approved"] == True, name="only-b"):  # noqa: E712
        serve(trained_b, scored_b, "b", 100)
