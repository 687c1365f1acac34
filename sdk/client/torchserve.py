"""TorchServe's own protocol, over REST and gRPC: what :mod:`longshore.serving.torchserve_handler` answers.

A version is asked at its own address: where the endpoint's model is ``NAME/VERSION``.

Source: github.com/pytorch/serve (v0.12.0, docs/inference_api.md, docs/grpc_api.md).
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from longshore.client.access import Access
from longshore.client.answers import Answer
from longshore.client.http import Http
from longshore.client.rpc import Channel
from longshore.client.tensors import Row
from longshore.errors import DeployError, InputError
from longshore.spec import Endpoint

__all__ = ["TorchServeGrpc", "TorchServeRest"]

_SERVICE: Final = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"


class TorchServeRest:
    """TorchServe over REST."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._http = Http(endpoint, access)

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        path = f"/predictions/{quote(self._endpoint.model)}"
        return _answer(f"{self._http.url}{path}", self._http.post(path, {"instances": rows}, timeout_seconds))

    def answering(self, timeout_seconds: float) -> str | None:
        # what it says there is of all its models, and a model whose workers start is asked in vain anyhow
        status, _ = self._http.get("/ping", timeout_seconds)
        return None if status == 0 else self._endpoint.revision

    def close(self) -> None:
        self._http.close()


class TorchServeGrpc:
    """TorchServe over gRPC."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint = endpoint
        self._channel = Channel(endpoint, access)

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        name, _, version = self._endpoint.model.partition("/")
        request = _class("PredictionsRequest")(model_name=name, model_version=version)
        request.input.add(key="data", value=json.dumps({"instances": rows}).encode())
        response = self._channel.call(f"{_SERVICE}/Predictions", request, _class("PredictionResponse"), timeout_seconds)
        try:
            content = json.loads(response.prediction)
        except ValueError:
            content = None
        # over gRPC it hands on what the handler answers, and not with which status
        if isinstance(content, dict) and isinstance(content.get("error"), str):
            raise InputError(f"{self._channel.url} answered: {content['error']}")
        return _answer(self._channel.url, content)

    def answering(self, timeout_seconds: float) -> str | None:
        there, _ = self._channel.answers(
            f"{_SERVICE}/Ping", _class("Empty")(), _class("TorchServeHealthResponse"), timeout_seconds
        )
        return self._endpoint.revision if there else None

    def close(self) -> None:
        self._channel.close()


def _answer(where: str, content: Any) -> Answer:
    predictions = content.get("predictions") if isinstance(content, dict) else None
    if not isinstance(predictions, list):
        raise DeployError(f"{where} answered without a list of predictions: {str(content)[:200]}")
    return Answer(predictions=predictions)


def _class(name: str) -> type[Any]:
    from longshore.wire.messages import TORCHSERVE, message

    return message(TORCHSERVE, name)
