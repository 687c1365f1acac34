"""Loading a package once by what will serve it, before anybody depends on it.

TFX calls this infrastructure validation. TorchServe is started for it (:mod:`longshore.validation.torchserve`);
TensorFlow's own loader and ONNX Runtime are what their servers load models with.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from longshore.errors import LongshoreError, ModelError
from longshore.packaging import LoadedModel, load_model, rows_to_frame
from longshore.packaging.feeds import FeedReader
from longshore.packaging.savedmodel import SIGNATURE, import_tensorflow
from longshore.packaging.tfserving import WARMUP_FILE
from longshore.wire.messages import TENSORFLOW_SERVING, message

__all__ = ["Checked", "check_model", "check_saved_model", "noted"]

_LIBRARIES: Final = {
    "onnx": ("ONNX Runtime", "onnxruntime"),
    "pytorch": ("PyTorch", "torch"),
    "tensorflow": ("TensorFlow", "tensorflow"),
}
_TYPES: Final = {"FP64": "float64", "UINT8": "uint8", "BYTES": "string", "INT64": "int64"}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was seen of a package in its server.

    Args:
        server: What loaded it, with its version.
        seconds: How long that took, from the start of the server to its answer.
        rows: Example rows that were asked.
    """

    server: str
    seconds: float
    rows: int

    def to_markdown(self) -> str:
        """For the Kubeflow UI."""
        return (
            f"**{self.server}** loaded the package and answered its {self.rows} example rows as the model itself does, "
            f"{self.seconds:.1f} s after it was started.\n"
        )


def noted(check: Callable[[Path], Checked] | None, report: Path) -> Callable[[Path], object]:
    """A check that writes down what it saw.

    Args:
        check: The check; None checks nothing, and says so.
        report: Where to.
    """

    def done(package: Path) -> None:
        text = "It was not tried in its server.\n" if check is None else check(package).to_markdown()
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text, encoding="utf-8")

    return done


def check_model(model: Path) -> Checked:
    """Load a model directory by its own library, such as ONNX Runtime, and ask it for the example rows.

    Args:
        model: The directory.

    Raises:
        MissingExtra: If the library is not installed.
        ModelError: If it cannot be loaded, or cannot predict the rows.
    """
    began = time.monotonic()
    loaded = load_model(model)
    _ask(loaded, model)
    name, module = _LIBRARIES.get(loaded.card.format, ("scikit-learn", "sklearn"))
    version = importlib.import_module(module).__version__
    return Checked(server=f"{name} {version}", seconds=time.monotonic() - began, rows=len(loaded.card.example))


def _ask(loaded: LoadedModel, model: Path) -> list[Any]:
    try:
        frame = rows_to_frame(loaded.card.signature, loaded.card.example)
        answers: list[Any] = loaded.predict(frame, conformed=True).tolist()
    except LongshoreError as error:
        raise ModelError(f"the model {model} cannot predict its own example: {error}") from error
    return answers


def check_saved_model(model: Path) -> Checked:
    """Load a SavedModel by TensorFlow, and hold its signature to what the card says of it.

    Args:
        model: The model directory.

    Raises:
        MissingExtra: If TensorFlow is not installed.
        ModelError: If it cannot be loaded, its signature takes other tensors, or answers otherwise.
    """
    tf = import_tensorflow(f"checking the SavedModel {model}")
    began = time.monotonic()
    loaded = load_model(model)
    card = loaded.card
    function = tf.saved_model.load(str(model)).signatures[SIGNATURE]
    specs = function.structured_input_signature[1]
    takes = {name: (spec.dtype.name, tuple(spec.shape.as_list())) for name, spec in specs.items()}
    wanted = {feed.name: (_TYPES[feed.datatype], (None, *feed.shape)) for feed in card.feeds}
    if takes != wanted:
        raise ModelError(f"{model}: its signature {SIGNATURE!r} takes {takes}, and its card says {wanted}")
    expected = _ask(loaded, model)
    frame = rows_to_frame(card.signature, card.example)
    tensors = FeedReader(card.feeds, card.signature)(frame)
    answer = function(**{name: tf.constant(array) for name, array in tensors.items()})["predict"].numpy().tolist()
    given = [value.decode() if isinstance(value, bytes) else value for value in answer]
    if given != expected:
        raise ModelError(f"{model}: its signature {SIGNATURE!r} answers {given}, and the model itself {expected}")
    _check_warmup(tf, model, function)
    return Checked(server=f"TensorFlow {tf.__version__}", seconds=time.monotonic() - began, rows=len(card.example))


def _check_warmup(tf: Any, model: Path, function: Any) -> None:
    """The server refuses a version whose requests to warm up with fail."""
    if not (model / WARMUP_FILE).is_file():
        return
    for record in tf.data.TFRecordDataset(str(model / WARMUP_FILE)).as_numpy_iterator():
        log = message(TENSORFLOW_SERVING, "PredictionLog").FromString(record)
        tensors = {entry.key: _tensor(tf, entry.value) for entry in log.predict_log.request.inputs}
        try:
            function(**tensors)
        except Exception as error:
            raise ModelError(f"{model}: a request in {WARMUP_FILE} fails: {error}") from error


def _tensor(tf: Any, value: Any) -> Any:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    return tf.constant(tf.make_ndarray(TensorProto.FromString(value.SerializeToString())))
