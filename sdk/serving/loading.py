"""Loading the versions of a model from a directory, and again while they serve."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from longshore.errors import InvalidValue, LongshoreError
from longshore.packaging import directory_digest
from longshore.packaging.model import CARD_FILE
from longshore.serving.application import Application
from longshore.serving.capture import Capture
from longshore.serving.core import BATCH_ROWS, Predictor
from longshore.serving.metrics import Metrics
from longshore.serving.models import Models
from longshore.serving.process import settle
from longshore.storage import fetch_directory

__all__ = ["Reload", "Source", "load_models"]

_log = logging.getLogger("longshore.serving")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a server's model is and as what it is served.

    Args:
        uri: A model directory, or a directory with one for each version, named by its number, as ``package_model``
            lays them out; a path or URI.
        name: Name of the model in request paths.
        revision: The revision.
        version: Version in the registry, for a directory with one model; for others, the one that is the default.
        digests: Digest that a directory must have, by version; for a directory with one model, under None.
        batch_rows: At most so many rows of several requests are predicted together.
        capture: Directory for a share of the requests; None for none.
        capture_share: That share.
    """

    uri: str
    name: str
    revision: str
    version: str | None
    digests: Mapping[str | None, str]
    batch_rows: int = BATCH_ROWS
    capture: Path | None = None
    capture_share: float = 1.0


def load_models(source: Source, before: Models | None = None) -> Models:
    """Load all versions of a model; all or none.

    Args:
        source: Where they are.
        before: What is served already: a version of it that has not changed is not loaded again.

    Raises:
        DigestMismatch: If a directory does not have its digest.
        InvalidValue: If a digest or default names a version that is not there.
        MissingExtra: If a library that a model needs is not installed.
        ModelError: If a directory is no model, or a model cannot predict its own example.
        StorageError: If it cannot be fetched.
    """
    _log.info("loading %s for revision %s", source.uri, source.revision)
    if before is None:
        metrics = Metrics(model=source.name, revision=source.revision)
        load = partial(_load, source, metrics, _capture(source, metrics), ())
    else:
        load = partial(_load, source, before.default.metrics, before.default.capture, before.predictors)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        directory = fetch_directory(source.uri, Path(scratch))
        found = _versions(directory)
        if not found:
            return Models([load(directory, source.version, source.digests.get(None))])
        if unknown := [version for version in source.digests if version not in found]:
            raise InvalidValue(
                "digest", unknown[0], f"{source.uri} holds versions {', '.join(found)}: write VERSION=DIGEST"
            )
        if source.version is not None and source.version not in found:
            raise InvalidValue("model-version", source.version, f"{source.uri} holds versions {', '.join(found)}")
        loaded = [load(place, version, source.digests.get(version)) for version, place in found.items()]
        return Models(loaded, default=source.version)


def _capture(source: Source, metrics: Metrics) -> Capture | None:
    if source.capture is None:
        return None
    return Capture(source.capture, share=source.capture_share, metrics=metrics, revision=source.revision)


def _versions(directory: Path) -> dict[str, Path]:
    if (directory / CARD_FILE).exists():
        return {}
    numbered = [place for place in directory.iterdir() if place.name.isdecimal() and (place / CARD_FILE).is_file()]
    return {place.name: place for place in sorted(numbered, key=lambda place: int(place.name))}


def _load(
    source: Source,
    metrics: Metrics,
    capture: Capture | None,
    before: Sequence[Predictor],
    directory: Path,
    version: str | None,
    digest: str | None,
) -> Predictor:
    for predictor in before:
        if predictor.version == version and predictor.content == directory_digest(directory):
            return predictor
    return Predictor.load(
        directory,
        name=source.name,
        digest=digest,
        version=version,
        revision=source.revision,
        batch_rows=source.batch_rows,
        metrics=metrics,
        capture=capture,
    )


class Reload:
    """Loads a server's models anew, while it goes on answering with those that it has.

    Args:
        application: What serves them.
        load: Gives what it shall serve, given what it serves.
    """

    def __init__(self, application: Application, load: Callable[[Models], Models]) -> None:
        self._application, self._load = application, load
        self._turn = threading.Lock()

    def __call__(self) -> bool:
        """Load, and serve what was loaded; whether it could be. It takes as long as loading does."""
        application = self._application
        with self._turn:
            before = application.models
            try:
                models = self._load(before)
            except Exception as error:  # noqa: BLE001 - whatever the model's own code raises is why
                reason = str(error) if isinstance(error, LongshoreError) else f"{type(error).__name__}: {error}"
                cause = None if isinstance(error, LongshoreError) else error
                served = ", ".join(before.versions) or "as before"
                _log.error("the model could not be loaded anew, and goes on (%s): %s", served, reason, exc_info=cause)
                application.metrics.reloaded(failed=True)
                return False
            application.models = models
            for gone in {*before.predictors} - {*models.predictors}:
                gone.retire(models.predictors)
            del before
            settle()
            application.metrics.reloaded(failed=False)
            _log.info("serving %s", ", ".join(f"version {version}" for version in models.versions) or "the model anew")
            return True
