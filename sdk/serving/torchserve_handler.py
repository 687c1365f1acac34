"""What answers inside TorchServe's workers: the predictor that answers behind every other server.

TorchServe hands on requests one by one or in batches, as JSON that it has read, or as bytes. Where it is told to take
off an envelope (``service_envelope``, as KServe tells it), it hands on the rows or tensors of one request; without one,
V1 and V2 are understood here, in batches too.

Source: github.com/pytorch/serve (ts/service.py, ts/torch_handler/request_envelope; v0.12.0).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from longshore.errors import InputError, ModelError
from longshore.packaging.archive import MODEL_FOLDER
from longshore.serving.core import Ask, Prediction, Predictor
from longshore.serving.protocol import Call, encode, read_v1, read_v2, unexpected
from longshore.serving.refusals import RequestError

__all__ = ["Handler", "ImageHandler", "TabularHandler", "TextHandler"]

_TENSOR: Final = frozenset({"name", "shape", "datatype", "data"})
_REASONS: Final = {400: "Bad Request", 500: "Internal Server Error", 503: "Service Unavailable"}

_log = logging.getLogger("longshore.serving")


class Handler:
    """A handler as TorchServe wants one. Its subclasses say what a request may be that is no JSON."""

    def __init__(self) -> None:
        self._loaded: Predictor | None = None

    @property
    def _predictor(self) -> Predictor:
        if self._loaded is None:
            raise RuntimeError("TorchServe asks before it has told the handler to load its model")
        return self._loaded

    def initialize(self, context: Any) -> None:
        """Load the model of the archive, which must have the digest that the archive's configuration says.

        Args:
            context: TorchServe's context.

        Raises:
            DigestMismatch: If it does not.
            ModelError: If it cannot be loaded, or cannot predict its own example.
        """
        model = context.manifest["model"]
        name, version = model["modelName"], str(model.get("modelVersion", "1"))
        self._loaded = Predictor.load(
            Path(context.system_properties["model_dir"]) / MODEL_FOLDER,
            name=name,
            digest=(context.model_yaml_config.get("handler") or {}).get("digest"),
            version=version,
            revision=f"{name}-{version}",
        )

    def handle(self, data: Sequence[Any], context: Any) -> list[Any]:
        """Answer what has come in together.

        Args:
            data: Requests; or the rows or tensors of one whose envelope TorchServe took off.
            context: TorchServe's context.

        Returns:
            An answer for each request; or the answers for the rows.
        """
        if len(data) == 1 and not data[0] and context.get_request_header(0, "describe") == "True":
            return [self._described()]
        if data and not all(self._is_request(entry) for entry in data):
            return self._answer_rows(data)
        calls = [self._read(entry.get("data", entry.get("body"))) for entry in data]
        readable = [call for call in calls if isinstance(call, Call)]
        outcomes = iter(self._predictor.answer_all([call.ask for call in readable]))
        return [
            self._told(context, index, call, next(outcomes) if isinstance(call, Call) else call)
            for index, call in enumerate(calls)
        ]

    def _described(self) -> bytes:
        """What TorchServe's ``describe`` hands on as ``customizedMetadata``."""
        predictor = self._predictor
        # of the process: who asks knows by it which worker has nothing left to do
        return encode(
            {"pid": os.getpid(), "version": predictor.version, "digest": predictor.digest, "task": predictor.card.task}
        )

    def _is_request(self, entry: Any) -> bool:
        """Whether this is a request, and not a row or tensor of one."""
        if not isinstance(entry, Mapping) or entry.keys() >= _TENSOR:
            return False
        names = {"data", "body"} & entry.keys()
        if not names & {*self._predictor.card.signature.names}:
            return bool(names)
        # a column of that name holds neither bytes nor an object, but for a picture
        value = entry.get("data", entry.get("body"))
        return isinstance(value, (bytes, bytearray)) or (isinstance(value, Mapping) and value.keys() != {"b64"})

    def _read(self, content: Any) -> Call | Exception:
        try:
            if isinstance(content, (bytes, bytearray)):
                content = self._of_bytes(bytes(content))
            if isinstance(content, str):
                content = self._of_text(content)
            if isinstance(content, Mapping) and "inputs" in content and "instances" not in content:
                return read_v2(self._predictor, content)
            return read_v1(self._predictor, content)
        except RequestError as error:
            return error

    def _of_bytes(self, content: bytes) -> Any:
        """A request's content that TorchServe has not read itself."""
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise RequestError(400, f"the body is not JSON: {error}") from error

    def _of_text(self, content: str) -> Any:
        return self._of_bytes(content.encode())

    def _row(self, value: Any) -> dict[str, Any]:
        """A request for one row of the only column."""
        (name,) = self._predictor.card.signature.names
        return {"instances": [{name: value}]}

    def _told(self, context: Any, index: int, call: Call | Exception, outcome: Prediction | Exception) -> Any:
        context.set_response_content_type(index, "application/json")
        if isinstance(outcome, Prediction) and isinstance(call, Call):
            return encode(call.answer(outcome))
        status, message = _refusal(outcome)
        context.set_response_status(code=status, phrase=_REASONS.get(status, ""), idx=index)
        return encode({"error": message})

    def _answer_rows(self, data: Sequence[Any]) -> list[Any]:
        tensors = isinstance(data[0], Mapping) and data[0].keys() >= _TENSOR
        try:
            if tensors:
                call = read_v2(self._predictor, {"inputs": [_flat(tensor) for tensor in data]})
                return [_listed(self._predictor.answer(call.ask))]
            return _listed(self._predictor.answer(Ask(rows=list(data))))
        except Exception as error:
            from ts.utils.util import PredictionException

            status, message = _refusal(error)
            raise PredictionException(message, status) from error


def _listed(prediction: Prediction) -> list[Any]:
    values = prediction.values
    return values if isinstance(values, list) else list(values.tolist())


def _flat(tensor: Mapping[str, Any]) -> dict[str, Any]:
    """A tensor as it was sent: of a string TorchServe's envelope takes the first, of numbers it makes nested lists."""
    data = tensor["data"]
    return {**tensor, "data": data if isinstance(data, list) else [data]}


def _refusal(error: Any) -> tuple[int, str]:
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, InputError):
        return 400, str(error)
    if isinstance(error, ModelError):
        _log.error("%s", error, exc_info=error.__cause__)
        return 500, str(error)
    _log.error("a request failed", exc_info=error)
    return 500, unexpected(error)


class TabularHandler(Handler):
    """Takes JSON only."""


class ImageHandler(Handler):
    """Takes JSON, or the file of one picture as it is."""

    def _of_bytes(self, content: bytes) -> Any:
        if content.lstrip()[:1] == b"{":
            return super()._of_bytes(content)
        return self._row(content)


class TextHandler(Handler):
    """Takes JSON, or one text as it is."""

    def _of_bytes(self, content: bytes) -> Any:
        try:
            return self._of_text(content.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(400, f"the body is neither JSON nor a text in UTF-8: {error}") from error

    def _of_text(self, content: str) -> Any:
        if content.lstrip()[:1] == "{":
            try:
                return orjson.loads(content)
            except orjson.JSONDecodeError:
                # a text may begin like that
                return self._row(content)
        return self._row(content)
