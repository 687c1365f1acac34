"""Package a model for TorchServe."""

from typing import List, NamedTuple, Optional

from kfp.dsl import Input, Markdown, Model, Output

from longshore.authoring import component


@component(cached=False, kind="torch")
def package_torchserve(
    model: Input[Model],
    packaged: Output[Model],
    report: Output[Markdown],
    repository: Optional[str] = None,
    layout: str = "standalone",
    min_workers: int = 1,
    max_workers: Optional[int] = None,
    batch_size: int = 1,
    max_batch_delay_seconds: float = 0.01,
    response_timeout_seconds: int = 120,
    startup_timeout_seconds: int = 120,
    queue_size: int = 100,
    requirements: Optional[List[str]] = None,
    check: bool = True,
) -> NamedTuple("Outputs", [("uri", str), ("digest", str)]):
    """Make an archive of a registered model, with its ``config.properties``, and try it in a real TorchServe.

    What answers in it checks requests, names their fields and predicts as every server of longshore does; longshore has
    to be installed beside TorchServe. TorchServe is not developed any further, and gets no fixes of security: KServe
    with ONNX or Triton (``package_triton``), and longshore's own server, are the ways on.

    Args:
        model: A registered model, of any format that longshore loads.
        packaged: The package at its place in the repository: ``config/config.properties`` and ``model-store/``.
        report: What TorchServe did with it.
        repository: Path or URI of the repository; by default the one of this machine.
        layout: ``standalone`` for TorchServe by itself, ``kserve`` for KServe's runtime.
        min_workers: Processes that answer, at least.
        max_workers: At most; as many by default.
        batch_size: Requests that a worker answers together; 1 with KServe's envelopes.
        max_batch_delay_seconds: How long a request waits for others.
        response_timeout_seconds: A worker that takes longer is started anew.
        startup_timeout_seconds: Time to load the model.
        queue_size: Requests that may wait; more are refused.
        requirements: What TorchServe is to install for this model when it loads it.
        check: Whether to load the package in a TorchServe of this step, and ask it for the example rows, before it is
            stored.

    Returns:
        uri: Where the package lies.
        digest: SHA-256 of its directory.

    Raises:
        DigestMismatch: If the files are not those that were trained.
        ModelError: If TorchServe cannot load it or answers otherwise, or other content is stored under the version.
        StorageError: If the repository cannot be written.
    """
    from pathlib import Path

    from longshore.artifacts import read_model, write_model
    from longshore.home import package_repository
    from longshore.packaging import Workers, package_torchserve
    from longshore.validation import check_torchserve
    from longshore.validation.packages import noted

    source = read_model(model)
    workers = Workers(
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=batch_size,
        max_batch_delay_seconds=max_batch_delay_seconds,
        response_timeout_seconds=response_timeout_seconds,
        startup_timeout_seconds=startup_timeout_seconds,
        queue_size=queue_size,
    )
    result = package_torchserve(
        source,
        repository or package_repository("torchserve"),
        name=source.name,
        version=source.version or "1",
        workers=workers,
        layout=layout,
        requirements=requirements or (),
        check=noted(check_torchserve if check else None, Path(report.path)),
    )
    write_model(packaged, result)
    return result.uri, result.digest or ""
