"""What every server process begins with: the arguments that say what it serves, and the model."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from longshore.errors import InvalidValue, LongshoreError
from longshore.serving.log import configure
from longshore.spec.checks import check_digest
from longshore.spec.image import DIGEST_ENV, MODEL_ENV, NAME_ENV, REVISION_ENV

if TYPE_CHECKING:
    from longshore.serving.loading import Source

__all__ = ["add_model_arguments", "leave", "log_failure", "set_up", "settle", "source_of"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES: Final = 64 * 2**20
_APART_BYTES: Final = 16 * 2**20

_log = logging.getLogger("longshore.serving")


def add_model_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that say which model is served, as what, and how long its last requests have."""
    given = os.environ
    parser.add_argument(
        "--model",
        default=given.get(MODEL_ENV),
        required=MODEL_ENV not in given,
        help=f"directory with model.json, or with one for each version: a path or URI; {MODEL_ENV} without",
    )
    parser.add_argument(
        "--name",
        default=given.get(NAME_ENV),
        required=NAME_ENV not in given,
        help=f"name of the model in request paths; {NAME_ENV} without",
    )
    parser.add_argument(
        "--revision",
        default=given.get(REVISION_ENV),
        required=REVISION_ENV not in given,
        help=f"name of this revision; {REVISION_ENV} without",
    )
    parser.add_argument(
        "--digest",
        action="append",
        help="digest that the directory must have; VERSION=DIGEST for each of several. "
        f"Of {MODEL_ENV}, {DIGEST_ENV} without",
    )
    parser.add_argument("--model-version", help="version in the registry; of several, the one that is the default")
    parser.add_argument("--batch-rows", type=int, help="rows of requests predicted together; 1024 without, 1: never")
    parser.add_argument("--capture", type=Path, help="directory to write requests and predictions to; none without it")
    parser.add_argument("--capture-share", type=float, default=1.0, help="share of the requests that is written there")
    parser.add_argument("--drain-seconds", type=float, default=10, help="time to finish requests in when told to end")


def set_up(log_format: str = "text") -> None:
    """Log to standard error, and end at once on a TERM as long as nothing is served yet."""
    configure(log_format)
    signal.signal(signal.SIGTERM, leave)
    _keep_memory()


def _keep_memory() -> None:
    """Have the process keep what a large request took, up to 64 MiB, for the next one.

    glibc gives memory of this size back at once, and the kernel clears it page by page when it is wanted again: a third
    of the time that a request of a megabyte takes. Another C library has no such setting, and needs none.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_MMAP_THRESHOLD, _APART_BYTES)


def source_of(options: Namespace) -> Source:
    """The model that the arguments name.

    Args:
        options: What :func:`add_model_arguments` has read.

    Raises:
        InvalidValue: If a digest is none, or is given twice.
    """
    from longshore.serving.core import BATCH_ROWS
    from longshore.serving.loading import Source

    digests = dict[str | None, str]()
    for given in options.digest or ():
        version, _, digest = given.rpartition("=")
        check_digest("digest", digest)
        if (version or None) in digests:
            raise InvalidValue("digest", given, "give one for each version")
        digests[version or None] = digest
    uri, digests = _own_copy(options.model, digests)
    return Source(
        uri=uri,
        name=options.name,
        revision=options.revision,
        version=options.model_version,
        digests=digests,
        batch_rows=options.batch_rows or BATCH_ROWS,
        capture=options.capture,
        capture_share=options.capture_share,
    )


def _own_copy(uri: str, digests: dict[str | None, str]) -> tuple[str, dict[str | None, str]]:
    """Where the model is: in the image, if it has the one that is asked for."""
    own, digest = os.environ.get(MODEL_ENV), os.environ.get(DIGEST_ENV)
    if own is None or digest is None:
        return uri, digests
    if uri == own:
        return own, digests or {None: digest}
    if digests == {None: digest}:
        _log.info("%s is here as %s", uri, own)
        return own, digests
    return uri, digests


def settle() -> None:
    """Collect what is not needed any more, and have garbage collection pass over the rest from now on.

    With the libraries of a model around, each full collection keeps requests waiting for a tenth of a second.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def log_failure(model: str, error: Exception) -> str:
    """Log why a model could not be loaded; gives the reason."""
    if isinstance(error, LongshoreError):
        _log.error("%s could not be loaded: %s", model, error)
        return str(error)
    _log.error("%s could not be loaded", model, exc_info=error)
    return f"{type(error).__name__}: {error}"


def leave(*_: object) -> None:
    """End at once, as a TERM has a process end that has nothing to finish."""
    # the first process of a container would otherwise not heed a TERM at all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)
