"""The face inside KServe's own model server (PyPI's ``kserve``): V1 and V2 over REST, V2 over gRPC, of one predictor.

KServe's server reads requests and writes answers, and :mod:`longshore.serving.protocol` says what they mean, as behind
every other face. What KServe's server refuses by itself is told in its own words: a body that is not JSON, a model that
is not there, a tensor of an unknown datatype.

Source: github.com/kserve/kserve (python/kserve, 0.21).
"""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import kserve
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor.exceptions import GrpcException, Internal, NotFound
from kserve.errors import InferenceError, InvalidInput
from prometheus_client import REGISTRY

from longshore.errors import InputError, ModelError
from longshore.serving import protocol
from longshore.serving.application import Application
from longshore.serving.core import Predictor
from longshore.serving.fastapi_app import Observed
from longshore.serving.models import Models
from longshore.serving.refusals import RequestError

__all__ = ["ModelServer", "ServedModel", "observe"]

_log = logging.getLogger("longshore.serving")

_BODY_MODEL: Final = "InferenceRequest"
"""Where FastAPI says that a body is no V2 request; it also says that it is no bytes, which is nobody's mistake."""


class ServedModel(kserve.Model):
    """A predictor as KServe's server asks it.

    Args:
        predictor: The loaded model.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.name)
        self._predictor, self._models = predictor, Models([predictor])
        self.ready = True

    def validate(self, payload: Any) -> Any:
        # KServe's own check knows less than the protocol's and has other words
        return payload

    def get_input_types(self) -> list[dict[str, Any]]:
        inputs: list[dict[str, Any]] = protocol.model_v2(self._predictor)["inputs"]
        return inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        outputs: list[dict[str, Any]] = protocol.model_v2(self._predictor)["outputs"]
        return outputs

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
        # in a thread, so that a slow model does not keep health checks waiting
        return await asyncio.to_thread(self._answer, payload)

    def _answer(self, payload: Any) -> Any:
        if not isinstance(payload, kserve.InferRequest):
            with _refused(InferenceError), protocol.measured(self._predictor, "v1"):
                # KServe hands on the bytes where the content type says more than that it is JSON
                content = protocol.parse(payload) if isinstance(payload, bytes) else payload
                return protocol.predict(self._predictor, content)
        version, failure = ("grpc-v2", Internal) if payload.from_grpc else ("v2", InferenceError)
        with _refused(failure), protocol.measured(self._predictor, version):
            self._models.find(self.name, payload.model_version or "")
            return _response(protocol.infer(self._predictor, _content(payload)), payload)


class _Repository(kserve.ModelRepository):
    """Holds the model for as long as the process lives: KServe's lets every client take it away, and a TERM too."""

    ending = False

    def unload(self, name: str) -> None:
        if not self.ending:
            raise InvalidInput(f"the model {name!r} cannot be unloaded: end its server instead")


class ModelServer(kserve.ModelServer):
    """KServe's server for one model; all else is what its arguments on the command line say.

    Args:
        drain_seconds: Time to answer what has begun, over REST and then over gRPC.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._repository = _Repository()
        super().__init__(registered_models=self._repository, grace_period=max(1, round(drain_seconds)))

    def stop(self, sig: int) -> None:
        self._repository.ending = True
        super().stop(sig)


def observe(app: FastAPI, predictor: Predictor) -> None:
    """Count what KServe's web application answers, show the predictor's metrics at its ``/metrics``, refuse with 400.

    Args:
        app: ``kserve.model_server.app``, before it has started.
        predictor: The model.
    """
    # KServe shows what is in the process's registry
    REGISTRY.register(predictor.metrics.registry)
    app.add_middleware(Observed, application=Application.of(predictor))
    app.add_exception_handler(RequestValidationError, _not_v2)


async def _not_v2(_: Request, error: Any) -> Response:
    found = error.errors()
    wrong = next((one for one in found if _BODY_MODEL in one["loc"]), found[0])
    where = ".".join(str(part) for part in wrong["loc"] if part not in ("body", _BODY_MODEL))
    return JSONResponse({"error": f"the body is no V2 request: {where}: {wrong['msg']}"}, status_code=400)


@contextmanager
def _refused(failure: type[InferenceError | GrpcException]) -> Iterator[None]:
    """Raise what KServe's server turns into the right status.

    Args:
        failure: What is a 500, or INTERNAL; KServe's own answers INVALID_ARGUMENT over gRPC.
    """
    try:
        yield
    except RequestError as error:
        raise (NotFound(str(error)) if error.status == 404 else InvalidInput(str(error))) from None
    except InputError as error:
        raise InvalidInput(str(error)) from None
    except ModelError as error:
        _log.error("%s", error, exc_info=error.__cause__)
        raise failure(str(error)) from None
    except Exception as error:  # noqa: BLE001 - it is logged, and the client is told
        _log.exception("the request failed")
        raise failure(protocol.unexpected(error)) from None


def _content(request: Any) -> dict[str, Any]:
    """A request as its JSON would be."""
    values = _unpacked if request.from_grpc else _sent
    return {
        "id": request.id,
        "inputs": [{"name": one.name, "shape": one.shape, "data": values(one)} for one in request.inputs],
        "outputs": [{"name": one.name} for one in request.request_outputs or ()],
    }


def _sent(tensor: Any) -> Any:
    return tensor.data


def _unpacked(tensor: Any) -> list[Any]:
    values = tensor.data
    if not values:
        # raw contents, which KServe keeps to itself
        try:
            values = tensor.as_numpy().ravel().tolist()
        except (ValueError, struct.error) as error:
            raise RequestError(
                400, f"input {tensor.name!r}: its contents are not {tensor.datatype} of shape {tensor.shape}: {error}"
            ) from error
    return protocol.tensor_values(tensor.name, tensor.datatype, values)


def _response(answer: dict[str, Any], request: Any) -> kserve.InferResponse:
    return kserve.InferResponse(
        # KServe's server fails without
        response_id=answer.get("id") or str(uuid.uuid4()),
        model_name=answer["model_name"],
        model_version=answer.get("model_version"),
        infer_outputs=[kserve.InferOutput(**output) for output in answer["outputs"]],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
