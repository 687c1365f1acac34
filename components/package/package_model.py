"""Lay a registered model out for its server."""

from typing import NamedTuple, Optional

from kfp.dsl import Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def package_model(
    model: Input[Model],
    packaged: Output[Model],
    repository: Optional[str] = None,
) -> NamedTuple("Outputs", [("uri", str), ("digest", str)]):
    """Copy a registered model to the repository that servers load from, under its name and version.

    The copy is checked against the recorded digest and appears whole or not at all. A version that is there
    already is left as it is if it has the same content, and is never overwritten with another.

    Args:
        model: A registered model.
        packaged: The same model at its place in the repository.
        repository: Path or URI of the repository; by default the one of this machine.

    Returns:
        uri: Where the model lies.
        digest: SHA-256 of its directory.

    Raises:
        DigestMismatch: If the files are not those that were trained.
        ModelError: If other content is stored under the same version.
        StorageError: If the repository cannot be written.
    """
    from longshore.artifacts import read_model, write_model
    from longshore.home import model_repository
    from longshore.packaging import package_model

    source = read_model(model)
    result = package_model(source, repository or model_repository(), name=source.name, version=source.version or "1")
    write_model(packaged, result)
    return result.uri, result.digest or ""
