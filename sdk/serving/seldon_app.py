"""The face inside Seldon Core 1's microservice: its own protocol over REST and gRPC, of one predictor.

``seldon-core-microservice longshore.serving.seldon_app.Model`` runs it. Seldon's microservice reads requests and writes
answers, and :mod:`longshore.serving.seldon_protocol` says what they mean.

A model is loaded by each worker of REST and of gRPC for itself, after they have been forked: libraries of models start
threads, which a fork would lose.

Source: PyPI's seldon-core 1.18.2, docs.seldon.io (python component).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf import json_format
from seldon_core.proto import prediction_pb2
from seldon_core.proto.tensorflow.core.framework.tensor_pb2 import TensorProto
from seldon_core.utils import array_to_grpc_datadef, get_request_path

from longshore.errors import InvalidValue
from longshore.packaging import read_card, verify
from longshore.packaging.datatypes import column_type, label_type
from longshore.serving import protocol, seldon_protocol
from longshore.serving.core import BATCH_ROWS, Predictor
from longshore.serving.metrics import Metrics
from longshore.serving.process import log_failure, settle
from longshore.serving.refusals import RequestError
from longshore.serving.rewards import Rewards
from longshore.serving.seldon_hooks import Refused, complete, deployed, refusals
from longshore.spec.checks import check_digest
from longshore.storage import fetch_directory
from longshore.wire.tensorflow import DOUBLE, INT64, TYPES, read_tensor

__all__ = ["MOUNT", "Model"]

MOUNT: Final = "/mnt/models"
"""Where Seldon's operator puts what ``modelUri`` names."""

_METHODS: Final = ("predict", "predict_proba")
_PROTOCOLS: Final = ("seldon", "grpc-seldon")

_log = logging.getLogger("longshore.serving")


class Model:
    """A packaged model, as Seldon's microservice asks it.

    The arguments are what a SeldonDeployment gives as ``parameters`` of the node; those that are left out come from
    what Seldon's operator tells its containers.

    Args:
        model_uri: The model directory: a path or URI.
        name: Name of the model; by default that of the node.
        version: Its version in the registry.
        revision: The revision that serves it; by default the predictor.
        digest: Digest that the directory must have.
        method: ``predict``, or ``predict_proba`` to answer with probabilities unless a request says otherwise.
        batch_rows: At most so many rows of several requests are predicted together.
        unknown: Refused.

    Raises:
        DigestMismatch: If the directory does not have the digest; nothing in it has been executed.
        InvalidValue: If a parameter is unknown or not valid.
        ModelError: If the directory is no model.
        StorageError: If it cannot be fetched.
    """

    def __init__(
        self,
        model_uri: str = MOUNT,
        name: str | None = None,
        version: str | None = None,
        revision: str | None = None,
        digest: str | None = None,
        method: str = "predict",
        batch_rows: int = BATCH_ROWS,
        **unknown: Any,
    ) -> None:
        if unknown:
            known = "model_uri, name, version, revision, digest, method, batch_rows"
            raise InvalidValue("parameters", ", ".join(unknown), f"there is {known}")
        if method not in _METHODS:
            raise InvalidValue("parameters.method", method, f"use {' or '.join(_METHODS)}")
        if digest is not None:
            check_digest("parameters.digest", digest)
        complete()
        where = deployed()
        self._name = name or where.get("unit", "model")
        self._revision = revision or where.get("predictor", self._name)
        self._version, self._digest, self._batch_rows = version, digest, batch_rows
        self._probabilities = method == "predict_proba"
        self._where = where
        self._predictor: Predictor | None = None
        # kept for as long as the container: each worker loads it, and none knows when the last one is gone
        self._directory = fetch_directory(model_uri, Path(tempfile.mkdtemp(prefix="longshore-model-")))
        # once before any worker is there, so that the container ends with the reason
        verify(self._directory, digest)
        self._card = read_card(self._directory)
        if self._probabilities and self._card.task != "classification":
            raise InvalidValue("parameters.method", method, f"{model_uri} predicts numbers: use predict")

    def load(self) -> None:
        """Load the model into this process.

        Raises:
            RuntimeError: If that fails, whatever the reason: Seldon's microservice passes over an AttributeError, and
                would serve nothing.
        """
        if self._predictor is not None:
            return
        try:
            metrics = Metrics(model=self._name, revision=self._revision, protocols=_PROTOCOLS)
            self._predictor = Predictor.load(
                self._directory,
                name=self._name,
                digest=self._digest,
                version=self._version,
                revision=self._revision,
                batch_rows=self._batch_rows,
                metrics=metrics,
            )
            self._rewards = Rewards(metrics.registry, self.tags())
        except Exception as error:
            raise RuntimeError(log_failure(str(self._directory), error)) from error
        settle()
        _log.info("revision %s is loaded", self._revision)

    def predict_raw(self, request: Any) -> Any:
        """Answer a prediction request.

        Args:
            request: A ``SeldonMessage`` over gRPC; over REST what its JSON holds, or its text with
                ``PAYLOAD_PASSTHROUGH``.

        Returns:
            The answer in the same form.
        """
        grpc = isinstance(request, prediction_pb2.SeldonMessage)
        text = isinstance(request, (bytes, str))
        with refusals(), protocol.measured(self._loaded(), _PROTOCOLS[grpc]):
            content = _of_proto(request) if grpc else _of_json(_parse(request) if text else request)
            answer = seldon_protocol.predict(self._loaded(), content, probabilities=self._probabilities)
            answer["meta"] = self._meta(content, answer)
            if grpc:
                return _to_proto(answer)
            answer = _to_json(answer)
            return protocol.encode(answer) if text else answer

    def send_feedback_raw(self, feedback: Any) -> Any:
        """Count a reward for whoever gave the answer: its tags say who that was.

        Args:
            feedback: A ``Feedback``.
        """
        predictor = self._loaded()
        with refusals():
            content = {
                "reward": feedback.reward,
                "response": _of_proto(feedback.response),
                "truth": _of_proto(feedback.truth),
            }
            self._rewards.count(seldon_protocol.read_feedback(content, predictor.card.signature))
            return _to_proto({"meta": self._meta(_of_proto(feedback.request), {})})

    def tags(self) -> dict[str, str]:
        """Who answers; it comes with each answer. A subclass may say more."""
        version = {} if self._version is None else {"version": self._version}
        return {"model": self._name, **version, "revision": self._revision, **self._where}

    def metrics(self) -> list[dict[str, Any]]:
        """Seldon's custom metrics, counted with each prediction: none, as longshore's own are shown beside them.

        A subclass may give some, as ``{"type": "COUNTER", "key": ..., "value": ...}``.
        """
        return []

    def class_names(self) -> list[str]:
        """The classes, in the order of probabilities."""
        return [str(label) for label in self._card.signature.classes or ()]

    def health_status(self) -> dict[str, Any]:
        """What is served."""
        with refusals():
            return {**self.tags(), "digest": self._loaded().content or ""}

    def init_metadata(self) -> dict[str, Any]:
        """What the model takes and gives, as Seldon's metadata has it."""
        signature = self._card.signature
        inputs = [{"name": c.name, "datatype": column_type(c), "shape": [-1, 1]} for c in signature.inputs]
        outputs = [{"name": "predict", "datatype": label_type(signature), "shape": [-1]}]
        return {
            "name": self._name,
            "versions": [] if self._version is None else [self._version],
            "platform": self._card.format,
            "inputs": inputs,
            "outputs": outputs,
            "custom": {"revision": self._revision, **({} if self._digest is None else {"digest": self._digest})},
        }

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            raise Refused(503, "the model is not loaded yet")
        return self._predictor

    def _meta(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
        asked = request.get("meta") or {}
        tags = {**(asked.get("tags") or {}), **self.tags(), **answer.get("meta", {}).get("tags", {})}
        meta: dict[str, Any] = {"tags": tags}
        if puid := asked.get("puid"):
            meta["puid"] = puid
        if path := {**(asked.get("requestPath") or {}), **get_request_path()}:
            meta["requestPath"] = path
        if metrics := self.metrics():
            meta["metrics"] = metrics
        return meta


def _parse(request: bytes | str) -> dict[str, Any]:
    return protocol.parse(request.encode() if isinstance(request, str) else request)


def _of_json(message: Any) -> Any:
    """A message with its ``tftensor`` read, if it has one."""
    data = message.get("data") if isinstance(message, Mapping) else None
    if not isinstance(data, Mapping) or "tftensor" not in data:
        return message
    try:
        tensor = json_format.ParseDict(data["tftensor"], TensorProto())
    except json_format.ParseError as error:
        raise RequestError(400, f"'data.tftensor' is no tensor: {error}") from error
    return {**message, "data": {**data, "tftensor": _tftensor(tensor)}}


def _of_proto(message: Any) -> dict[str, Any]:
    """A message as its JSON would be."""
    content: dict[str, Any] = {"meta": json_format.MessageToDict(message.meta)}
    field = message.WhichOneof("data_oneof")
    if field == "data":
        content["data"] = {"names": list(message.data.names), **_data_of_proto(message.data)}
    elif field == "jsonData":
        content["jsonData"] = json_format.MessageToDict(message.jsonData)
    elif field is not None:
        content[field] = getattr(message, field)
    return content


def _data_of_proto(data: Any) -> dict[str, Any]:
    kind = data.WhichOneof("data_oneof")
    if kind == "tensor":
        return {kind: {"shape": list(data.tensor.shape), "values": np.array(data.tensor.values, dtype=np.float64)}}
    if kind == "ndarray":
        return {kind: json_format.MessageToDict(data.ndarray)}
    return {} if kind is None else {kind: _tftensor(data.tftensor)}


def _tftensor(tensor: Any) -> dict[str, Any]:
    try:
        values, shape = read_tensor(tensor)
    except ValueError as error:
        raise RequestError(400, f"'data.tftensor' cannot be read: {error}") from error
    return {"shape": shape, "values": [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values]}


def _to_json(answer: dict[str, Any]) -> dict[str, Any]:
    tensor = answer.get("data", {}).get("tftensor")
    if tensor is None:
        return answer
    plain = json_format.MessageToDict(_to_tftensor(tensor))
    return {**answer, "data": {"names": answer["data"]["names"], "tftensor": plain}}


def _to_proto(answer: Mapping[str, Any]) -> Any:
    message = prediction_pb2.SeldonMessage(meta=json_format.ParseDict(answer["meta"], prediction_pb2.Meta()))
    if "jsonData" in answer:
        json_format.ParseDict(answer["jsonData"], message.jsonData)
    elif "strData" in answer:
        message.strData = answer["strData"]
    elif "data" in answer:
        message.data.CopyFrom(_data_to_proto(answer["data"]))
    return message


def _data_to_proto(data: Mapping[str, Any]) -> Any:
    names: Sequence[str] = data["names"]
    if "ndarray" in data:
        return array_to_grpc_datadef("ndarray", np.array(data["ndarray"]), names)
    if "tensor" in data:
        return prediction_pb2.DefaultData(names=names, tensor=prediction_pb2.Tensor(**data["tensor"]))
    return prediction_pb2.DefaultData(names=names, tftensor=_to_tftensor(data["tftensor"]))


def _to_tftensor(tensor: Mapping[str, Any]) -> Any:
    whole = all(isinstance(value, int) for value in tensor["values"])
    kind = INT64 if whole else DOUBLE
    proto = TensorProto(dtype=kind)
    for size in tensor["shape"]:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, TYPES[kind].field).extend(tensor["values"])
    return proto
