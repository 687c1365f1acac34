"""TensorFlow's SavedModels, whose own directory is the model directory.

So it lies as TensorFlow Serving wants it, ``<repository>/<name>/<version>/saved_model.pb``; the card beside it does not
trouble that server. What it takes and gives is told by its signature ``serving_default``: a tensor for each column, and
``predict`` and ``predict_proba``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from longshore.errors import MissingExtra, ModelError
from longshore.packaging.card import ModelCard
from longshore.packaging.feeds import FeedReader
from longshore.packaging.network import PROBABILITIES, VALUE, NetworkRegressor, as_model

__all__ = ["SIGNATURE", "import_tensorflow", "load_saved_model"]

SIGNATURE: Final = "serving_default"


def import_tensorflow(what: str) -> Any:
    """TensorFlow, without what it has to say to developers of its own.

    Args:
        what: What needs it, for the message.

    Raises:
        MissingExtra: If it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # models are to answer alike on every processor
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "tensorflow", "tensorflow") from error
    return tf


def _limit_threads(tf: Any) -> None:
    """Its own default is a thread for each core of the node, whatever part of them a pod may use."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    # whoever has used it before in this process has settled that
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(int(threads) if threads.isdecimal() else 1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def load_saved_model(files: Mapping[str, bytes], card: ModelCard, where: str) -> NetworkRegressor:
    """The model of a SavedModel.

    Args:
        files: Content of its files by relative path, checked against the card.
        card: The card.
        where: The directory, for messages.

    Raises:
        MissingExtra: If TensorFlow is not installed.
        ModelError: If it cannot be loaded, or lacks the signature.
    """
    tf = import_tensorflow(f"the model {where}")
    _limit_threads(tf)
    # TensorFlow loads from a directory only: from one that nobody else can change
    with tempfile.TemporaryDirectory(prefix="longshore-") as private:
        for name, content in files.items():
            path = Path(private, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            loaded = tf.saved_model.load(private)
        except Exception as error:  # it raises what its parts stumble over
            made = card.libraries.get("tensorflow", "unknown")
            raise ModelError(
                f"{where} could not be loaded ({type(error).__name__}: {error}): it was made with TensorFlow {made}, "
                f"and here is {tf.__version__}"
            ) from error
    if SIGNATURE not in loaded.signatures:
        there = ", ".join(sorted(loaded.signatures)) or "none"
        raise ModelError(f"{where} has no signature {SIGNATURE!r} (it has: {there}): servers ask for that one")
    function = loaded.signatures[SIGNATURE]
    output = VALUE if card.task == "regression" else PROBABILITIES
    if output not in function.structured_outputs:
        given = ", ".join(sorted(function.structured_outputs))
        raise ModelError(f"{where}: its signature {SIGNATURE!r} gives {given}, and not {output!r}")

    def run(tensors: Mapping[str, np.ndarray]) -> Any:
        # the function dies with what it was loaded from
        assert loaded is not None  # noqa: S101
        return function(**{name: tf.constant(array) for name, array in tensors.items()})[output].numpy()

    return as_model(run, FeedReader(card.feeds, card.signature), card, where)
