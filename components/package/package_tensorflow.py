"""Package a SavedModel for TensorFlow Serving."""

from typing import Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Markdown, Model, Output

from longshore.authoring import component


@component(cached=False, kind="tensorflow")
def package_tensorflow(
    model: Input[Model],
    packaged: Output[Model],
    config: Output[Artifact],
    report: Output[Markdown],
    repository: Optional[str] = None,
    base_path: Optional[str] = None,
    versions: Optional[List[int]] = None,
    latest: Optional[int] = None,
    labels: Optional[Dict[str, int]] = None,
    max_batch_size: Optional[int] = None,
    batch_timeout_seconds: float = 0.001,
    batch_threads: int = 4,
    check: bool = True,
) -> NamedTuple("Outputs", [("uri", str), ("digest", str)]):
    """Lay a registered SavedModel out under its version, with the server's configuration, and try it in TensorFlow.

    The copy appears whole or not at all, as the server looks for new versions all the time. A version that is there
    already is left as it is if it has the same content, and is never overwritten with another.

    Args:
        model: A registered model that ``train_tensorflow`` made.
        packaged: The same model at its place in the repository, ``NAME/VERSION/saved_model.pb``.
        config: Directory with ``models.config``, ``monitoring.config`` and, if requests are to be answered together,
            ``batching.config``.
        report: What TensorFlow did with it.
        repository: Path or URI of the repository; by default the one of this machine.
        base_path: Directory of the model as the server sees it; by default that in the repository.
        versions: Versions that are served side by side; by default this one.
        latest: Serve so many of the newest versions instead, whatever they are.
        labels: Version by label, such as ``{"stable": 3, "canary": 4}``; each has to be one of the versions.
        max_batch_size: Rows that are answered together, at most; null answers each request by itself.
        batch_timeout_seconds: How long a row waits for others.
        batch_threads: Batches that are answered at the same time.
        check: Whether to load it by TensorFlow, hold its signature to the card and ask it for the example rows, before
            it is stored.

    Returns:
        uri: Where the model lies.
        digest: SHA-256 of its directory.

    Raises:
        DigestMismatch: If the files are not those that were trained.
        InvalidValue: If a label names a version that is not served, or sizes of batches do not fit.
        ModelError: If it is no SavedModel, TensorFlow cannot load it or it answers otherwise, or other content is
            stored under the version.
        StorageError: If the repository cannot be written.
    """
    from pathlib import Path

    from longshore.artifacts import read_model, write_model
    from longshore.home import model_repository
    from longshore.packaging import Batching, ServedModel, config_files, package_tensorflow
    from longshore.validation import check_saved_model
    from longshore.validation.packages import noted

    source = read_model(model)
    place, version = repository or model_repository(), source.version or "1"
    served = ServedModel(
        name=source.name,
        base_path=base_path or f"{place.rstrip('/')}/{source.name}",
        versions=() if latest else tuple(versions or [int(version)]),
        latest=latest or 1,
        labels=labels or {},
    )
    batching = None
    if max_batch_size is not None:
        batching = Batching(max_batch_size=max_batch_size, timeout_seconds=batch_timeout_seconds, threads=batch_threads)
    files = config_files([served], batching)
    check_with = noted(check_saved_model if check else None, Path(report.path))
    result = package_tensorflow(source, place, name=source.name, version=version, check=check_with)
    Path(config.path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (Path(config.path) / name).write_text(text, encoding="ascii")
    write_model(packaged, result)
    return result.uri, result.digest or ""
