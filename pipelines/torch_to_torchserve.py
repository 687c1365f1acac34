"""From data to a new version of a PyTorch network on a TorchServe that runs."""

from typing import Any, Dict, List, Optional

from kfp import dsl

from longshore.authoring import image
from longshore.components.data.load_data import load_data
from longshore.components.data.split_data import split_data
from longshore.components.deploy.update_torchserve import update_torchserve
from longshore.components.package.package_torchserve import package_torchserve
from longshore.components.register.register_model import register_model
from longshore.components.train.train_torch import train_torch
from longshore.components.validate.evaluate_model import evaluate_model
from longshore.components.validate.validate_model import validate_model


@dsl.pipeline(name="torch-to-torchserve")
def torch_to_torchserve(
    data: str,
    target: str,
    management: str,
    inference: str,
    name: str = "model",
    network: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    task: str = "auto",
    epochs: int = 20,
    batch_size: int = 64,
    optimizer_parameters: Optional[Dict[str, Any]] = None,
    exclude: Optional[List[str]] = None,
    text_column: Optional[str] = None,
    image_size: Optional[List[int]] = None,
    save_as: str = "pt2",
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
    grpc: Optional[str] = None,
    store: Optional[str] = None,
    workers: int = 1,
    max_batch: int = 1,
    check: bool = True,
    make_default: bool = True,
    keep_versions: Optional[int] = None,
    key_file: Optional[str] = None,
    ca_file: Optional[str] = None,
    logs: Optional[str] = None,
    deploy_timeout_seconds: int = 300,
):
    """Train a network and serve it as the next version on a TorchServe, if it passes its gate.

    The version is tried in a TorchServe of its own when it is packaged, brought up beside the one that serves, asked
    for its example rows, and made the default without a request that fails. What does not pass the gate, or fails
    anywhere, leaves what serves as it is. TorchServe is not developed any further, and gets no fixes of security:
    KServe with ONNX or Triton, and longshore's own server, are the ways on.

    Args:
        data: Path or URI of a CSV or Parquet table; a column of it may hold pictures or texts.
        target: Column to be predicted.
        management: URL of TorchServe's management API.
        inference: URL where it predicts.
        name: Name of the model in the registry and on TorchServe.
        network: Import path of a class or function that gives a ``torch.nn.Module``; by default a small one.
        parameters: Its arguments.
        task: ``classification``, ``regression`` or ``auto``.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        optimizer_parameters: Arguments of the optimizer, such as ``{"lr": 0.01}``.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        image_size: Height and width that pictures are scaled to, and channels; by default as the pictures are.
        save_as: ``pt2``, ``torchscript`` or ``onnx``.
        checkpoints: Path or URI of a directory that outlives the step: a retried one resumes from there.
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
        repository: Path or URI where packages are kept.
        grpc: URL where TorchServe predicts over gRPC.
        store: Path or URI at which the step reaches TorchServe's model store, where TorchServe does not read the
            repository itself.
        workers: Processes that answer.
        max_batch: Requests that a worker answers together.
        check: Whether to try the package in a TorchServe of the step before it is stored.
        make_default: Whether those who name no version get this one.
        keep_versions: How many of the versions before it stay; by default all.
        key_file: The ``key_file.json`` that TorchServe has written, where the step can read it.
        ca_file: Certificates of the authorities to trust.
        logs: Directory with TorchServe's logs, where the step can read it.
        deploy_timeout_seconds: For the workers to load the model.
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
    trained = train_torch(
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
        image_size=image_size,
        save_as=save_as,
        checkpoints=checkpoints,
    )
    # whoever loads the network needs PyTorch
    scored = evaluate_model(model=trained.outputs["model"], test=parts.outputs["test"])
    scored.set_container_image(image("torch"))
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
    judged.set_container_image(image("torch"))
    with dsl.If(judged.outputs["approved"] == True, name="approved"):  # noqa: E712 - kfp compiles the comparison
        registered = register_model(
            model=trained.outputs["model"], metrics=scored.outputs["metrics"], name=name, registry=registry
        )
        packaged = package_torchserve(
            model=registered.outputs["registered"],
            repository=repository,
            min_workers=workers,
            batch_size=max_batch,
            check=check,
        )
        update_torchserve(
            model=packaged.outputs["packaged"],
            management=management,
            inference=inference,
            grpc=grpc,
            store=store,
            make_default=make_default,
            keep_versions=keep_versions,
            key_file=key_file,
            ca_file=ca_file,
            logs=logs,
            registry=registry,
            timeout_seconds=deploy_timeout_seconds,
        )
