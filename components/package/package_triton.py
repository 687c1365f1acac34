"""Package a model for Triton."""

from typing import NamedTuple, Optional

from kfp.dsl import Input, Markdown, Model, Output

from longshore.authoring import component


@component(cached=False)
def package_triton(
    model: Input[Model],
    packaged: Output[Model],
    report: Output[Markdown],
    repository: Optional[str] = None,
    max_batch_size: int = 64,
    max_queue_delay_seconds: Optional[float] = 0.001,
    instances: int = 1,
    gpu: bool = False,
    check: bool = True,
) -> NamedTuple("Outputs", [("uri", str), ("digest", str)]):
    """Make a Triton model repository of a registered model: ``config.pbtxt`` and a directory for the version.

    Triton asks the network itself: requests carry the tensors that the model card lists as ``feeds``.

    Args:
        model: A registered model of ONNX, TensorFlow, or PyTorch saved as TorchScript, or a package for TorchServe with
            such a model in it.
        packaged: The package at its place in the repository, as KServe's Triton runtime mounts it.
        report: What the model's own library did with it.
        repository: Path or URI of the repository; by default the one of this machine.
        max_batch_size: Rows in one call of the model, at most.
        max_queue_delay_seconds: How long a request waits for others; null answers each by itself.
        instances: Copies of the model on each device.
        gpu: Whether they are on the GPUs.
        check: Whether to load the model by its own library (ONNX Runtime, say) and ask it for the example rows, before
            it is stored.

    Returns:
        uri: Where the package lies.
        digest: SHA-256 of its directory.

    Raises:
        ConfigError: If Triton has no backend for the model.
        DigestMismatch: If the files are not those that were trained.
        ModelError: If it cannot be loaded, or other content is stored under the version.
        StorageError: If the repository cannot be written.
    """
    from pathlib import Path

    from longshore.artifacts import read_model, write_model
    from longshore.home import package_repository
    from longshore.packaging import TritonOptions, package_triton
    from longshore.validation import check_model
    from longshore.validation.packages import noted

    source = read_model(model)
    result = package_triton(
        source,
        repository or package_repository("triton"),
        name=source.name,
        version=source.version or "1",
        options=TritonOptions(
            max_batch_size=max_batch_size,
            max_queue_delay_seconds=max_queue_delay_seconds,
            instances=instances,
            gpu=gpu,
        ),
        check=noted(check_model if check else None, Path(report.path)),
    )
    write_model(packaged, result)
    return result.uri, result.digest or ""
