"""From data to the next version of a SavedModel on TensorFlow Serving: first its canary, then stable."""

from typing import Any, Dict, List, Optional

from kfp import dsl

from longshore.authoring import image
from longshore.components.data.load_data import load_data
from longshore.components.data.split_data import split_data
from longshore.components.deploy.deploy_tfserving import deploy_tfserving
from longshore.components.deploy.predict_endpoint import predict_endpoint
from longshore.components.package.package_tensorflow import package_tensorflow
from longshore.components.register.register_model import register_model
from longshore.components.train.train_tensorflow import train_tensorflow
from longshore.components.validate.evaluate_model import evaluate_model
from longshore.components.validate.validate_model import validate_model

# kfp has no types: a PipelineTask
_Task = Any


@dsl.pipeline(name="tensorflow-versions")
def tensorflow_versions(
    data: str,
    target: str,
    name: str = "model",
    network: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    task: str = "auto",
    epochs: int = 20,
    batch_size: int = 64,
    optimizer_parameters: Optional[Dict[str, Any]] = None,
    exclude: Optional[List[str]] = None,
    text_column: Optional[str] = None,
    text_length: int = 128,
    image_size: Optional[List[int]] = None,
    checkpoints: Optional[str] = None,
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
    max_requests: int = 200,
    max_p99_seconds: Optional[float] = None,
    servers: Optional[List[str]] = None,
    base_path: Optional[str] = None,
    others: Optional[List[Dict[str, Any]]] = None,
    rest_url: Optional[str] = None,
    namespace: Optional[str] = None,
    replicas: int = 1,
    max_replicas: Optional[int] = None,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    batching: Optional[Dict[str, Any]] = None,
    secrets: Optional[List[str]] = None,
    service_account: Optional[str] = None,
    server_image: Optional[str] = None,
    deploy_timeout_seconds: int = 600,
):
    """Train a network and serve it as the next version: as ``canary`` beside what is stable, and then in its place.

    It is served only if it passes its thresholds and is not worse than the champion on the same test rows. As the
    canary it is sent those rows; if an answer is missing, cannot be right or takes too long, the pipeline ends there,
    and what is stable was never touched.

    Args:
        data: Path or URI of a CSV or Parquet table.
        target: Column to be predicted.
        name: Name of the model in the registry and of the service.
        network: Import path of a class or function that gives a ``keras.Model``; by default a small one.
        parameters: Its arguments.
        task: ``classification``, ``regression`` or ``auto``.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        optimizer_parameters: Arguments of the optimizer, such as ``{"learning_rate": 0.01}``.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        text_length: So many words of each are read.
        image_size: Height and width that pictures are scaled to, and channels.
        checkpoints: Path or URI of a directory that outlives the step, for a retry to resume from.
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
        max_requests: At most so many of the test rows are sent to the canary.
        max_p99_seconds: Bound on the 99th percentile of its latency.
        servers: ``HOST:PORT`` of each TensorFlow Serving that runs already, where gRPC is spoken; by default it is run
            on Kubernetes.
        base_path: Directory of the model's versions as these servers see it; by default that in the repository.
        others: Their other models, which would be unloaded otherwise.
        rest_url: Where they speak REST, for clients.
        namespace: Kubernetes namespace of the service; by default that of the pipeline.
        replicas: Number of pods; the least where ``max_replicas`` is given.
        max_replicas: Largest number of pods; by default it is fixed.
        cpu: CPU that a pod requests.
        memory: Memory that a pod requests and is limited to, for two versions of the model.
        batching: Requests are answered together: a mapping with the fields of ``longshore.spec.Batching``.
        secrets: Kubernetes Secrets with the credentials that pods need to read the model.
        service_account: Kubernetes service account of the pods.
        server_image: Container image of TensorFlow Serving.
        deploy_timeout_seconds: For the version to be available, each time.
    """
    loaded = load_data(data=data)
    parts = split_data(
        dataset=loaded.outputs["dataset"],
        target=target,
        method=split,
        test_size=test_size,
        seed=seed,
        time_column=time_column,
        group_column=group_column,
    )
    trained = train_tensorflow(
        train=parts.outputs["train"],
        target=target,
        network=network,
        parameters=parameters,
        task=task,
        epochs=epochs,
        batch_size=batch_size,
        optimizer_parameters=optimizer_parameters,
        seed=seed,
        exclude=exclude,
        text_column=text_column,
        text_length=text_length,
        image_size=image_size,
        checkpoints=checkpoints,
    )
    # whoever loads the network needs TensorFlow
    scored = evaluate_model(model=trained.outputs["model"], test=parts.outputs["test"])
    scored.set_container_image(image("tensorflow"))
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
    judged.set_container_image(image("tensorflow"))

    def serve(packaged: _Task, label: str) -> _Task:
        """Give the version a label."""
        return deploy_tfserving(
            model=packaged.outputs["packaged"],
            name=name,
            label=label,
            namespace=namespace,
            replicas=replicas,
            max_replicas=max_replicas,
            cpu=cpu,
            memory=memory,
            batching=batching,
            servers=servers,
            base_path=base_path,
            others=others,
            rest_url=rest_url,
            secrets=secrets,
            service_account=service_account,
            image=server_image,
            registry=registry,
            timeout_seconds=deploy_timeout_seconds,
        ).set_display_name(f"deploy {label}")

    with dsl.If(judged.outputs["approved"] == True, name="approved"):  # noqa: E712 - kfp compiles the comparison
        registered = register_model(
            model=trained.outputs["model"], metrics=scored.outputs["metrics"], name=name, registry=registry
        )
        packaged = package_tensorflow(model=registered.outputs["registered"], repository=repository)
        canary = serve(packaged, "canary")
        asked = predict_endpoint(
            endpoint=canary.outputs["endpoint"],
            model=packaged.outputs["packaged"],
            dataset=parts.outputs["test"],
            max_requests=max_requests,
            max_p99_seconds=max_p99_seconds,
        )
        serve(packaged, "stable").after(asked)
