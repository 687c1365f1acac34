"""What every server process begins with: the arguments that say what it serves, and the model."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.errors import LongshoreError
from longshore.storage import fetch_directory

if TYPE_CHECKING:
    from longshore.serving.core import Predictor

__all__ = ["add_model_arguments", "load_predictor", "log_failure", "set_up"]

_log = logging.getLogger("longshore.serving")


def add_model_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that say which model is served, as what, and how long its last requests have."""
    parser.add_argument("--model", required=True, help="directory with model.json: a path or URI")
    parser.add_argument("--name", required=True, help="name of the model in request paths")
    parser.add_argument("--revision", required=True, help="name of this revision")
    parser.add_argument("--digest", help="digest that the directory must have")
    parser.add_argument("--model-version", help="version in the registry")
    parser.add_argument("--batch-rows", type=int, help="rows of requests predicted together; 1024 without, 1: never")
    parser.add_argument("--drain-seconds", type=float, default=10, help="time to finish requests in when told to end")


def set_up() -> None:
    """Log to standard error, and end at once on a TERM as long as nothing is served yet."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _leave)


def load_predictor(options: Namespace) -> Predictor:
    """Load the model that the arguments name.

    Args:
        options: What :func:`add_model_arguments` has read.

    Raises:
        DigestMismatch: If the directory does not have the digest.
        MissingExtra: If a library that the model needs is not installed.
        ModelError: If the directory is no model, or the model cannot predict its own example.
        StorageError: If it cannot be fetched.
    """
    from longshore.serving.core import BATCH_ROWS, Predictor

    _log.info("loading %s for revision %s", options.model, options.revision)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        return Predictor.load(
            fetch_directory(options.model, Path(scratch)),
            name=options.name,
            digest=options.digest,
            version=options.model_version,
            revision=options.revision,
            batch_rows=options.batch_rows or BATCH_ROWS,
        )


def log_failure(model: str, error: Exception) -> str:
    """Log why a model could not be loaded; gives the reason."""
    if isinstance(error, LongshoreError):
        _log.error("%s could not be loaded: %s", model, error)
        return str(error)
    _log.error("%s could not be loaded", model, exc_info=error)
    return f"{type(error).__name__}: {error}"


def _leave(*_: object) -> None:
    # the first process of a container would otherwise not heed a TERM at all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)
