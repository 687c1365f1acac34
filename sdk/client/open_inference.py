"""The Open Inference Protocol, over REST and gRPC, through the clients of KServe's SDK.

Those are asynchronous. One loop in a thread of its own serves all of them, so that they can be used from plain code and
from a notebook, which has a loop that runs already, and without gRPC complaining of several loops in one process.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from longshore.client.access import Access, tls_name
from longshore.client.answers import Answer
from longshore.client.refusals import NotReached, causes, no_trust, refused
from longshore.client.rpc import refused_rpc, target_of
from longshore.client.tensors import Row, Tensor, as_tensors, without_gaps
from longshore.errors import DeployError, LongshoreError, MissingExtra
from longshore.spec import Endpoint

if TYPE_CHECKING:
    import httpx

__all__ = ["Grpc", "Rest"]

_T = TypeVar("_T")

_COLUMNS: Final = {"content_type": "pd"}
"""Has servers with pandas in them make a table of the columns."""

_TEXTS: Final = {"content_type": "str"}
"""Has them take bytes for texts, which over gRPC they are not otherwise."""

_OUTPUT: Final = "predict"

_ROUTE: Final = "x-seldon-route"
"""Seldon Core 2's header: who answered, ``:MODEL_VERSION:``; sent back, it leads there again."""

_ANSWERED: Final = re.compile(r":([^:]+?)(?:_\d+|\.pipeline):")
_NOT_FOUND: Final = 404


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="longshore client", daemon=True).start()
    return loop


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        # Ctrl-C comes here and not to the loop
        future.cancel()
        raise


@functools.cache
def _kserve() -> Any:
    try:
        import kserve
    except ModuleNotFoundError as error:
        raise MissingExtra("predicting over the protocols v2 and grpc-v2", error.name or "kserve", "kserve") from error
    # it logs the traceback of every refusal, and raises it as well
    logging.getLogger("kserve.trace").addFilter(lambda record: not str(record.msg).startswith("Failed to "))
    return kserve


def _request(endpoint: Endpoint, rows: list[Row], missing: Callable[[Any], Any]) -> Any:
    kserve = _kserve()
    # of a matrix, such a server would make a table of one column
    columns = bool(rows) and isinstance(rows[0], Mapping)
    inputs = [_input(tensor, missing, columns=columns) for tensor in as_tensors(rows)]
    parameters = dict(_COLUMNS) if columns else None
    return kserve.InferRequest(model_name=endpoint.model, infer_inputs=inputs, parameters=parameters)


def _input(tensor: Tensor, missing: Callable[[Any], Any], *, columns: bool) -> Any:
    data = [missing(tensor) if value is None else value for value in tensor.data]
    parameters = dict(_TEXTS) if columns and tensor.datatype == "BYTES" else None
    return _kserve().InferInput(
        name=tensor.name, shape=list(tensor.shape), datatype=tensor.datatype, data=data, parameters=parameters
    )


def _predictions(url: str, response: Any, rows: int) -> list[Any]:
    """The values of the output ``predict``, or else of the first one."""
    output = next((one for one in response.outputs if one.name == _OUTPUT), next(iter(response.outputs), None))
    if output is None:
        raise DeployError(f"{url} answered without an output")
    try:
        array = output.as_numpy()
    except ValueError as error:
        raise DeployError(f"{url} answered with an output {output.name!r} that is no tensor: {error}") from error
    values = array.reshape(-1) if array.size == rows else array
    return [_decoded(value) for value in values.tolist()]


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _who(route: str, revision: str) -> str | None:
    """The revision that a route of Seldon's leads to, None if it says nothing."""
    names = _ANSWERED.findall(route)
    return revision if revision in names else next(iter(names), None)


class Rest:
    """Open Inference Protocol over REST.

    Attributes:
        sticky: Whether to keep to the revision that answered first, where answers say how.
    """

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        kserve = _kserve()
        import httpx

        self.sticky = False
        self._endpoint, self._access = endpoint, access
        self._route, self._kept, self._status = "", "", 0
        told = self
        self._url = endpoint.url.rstrip("/")
        secure = self._url.startswith("https")
        name = tls_name(endpoint, self._url) if secure else None

        class Transport(httpx.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if name is not None:
                    request.extensions["sni_hostname"] = name
                response = await super().handle_async_request(request)
                told._route, told._status = response.headers.get(_ROUTE, ""), response.status_code
                return response

        # with a transport of its own, it takes no proxy from the environment
        transport = Transport(verify=access.trust() if secure else True)
        self._client = kserve.InferenceRESTClient(kserve.RESTConfig(transport=transport, protocol="v2"))

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        try:
            answer = self._infer(rows, timeout_seconds)
        except LongshoreError:
            if not self._kept or self._status != _NOT_FOUND:
                raise
            # who answered has ended: whoever does now is kept to from here on
            self._kept = ""
            answer = self._infer(rows, timeout_seconds)
        if self.sticky:
            self._kept = self._kept or self._route
        return answer

    def _infer(self, rows: list[Row], timeout_seconds: float) -> Answer:
        request = _request(self._endpoint, rows, lambda _: None)
        url = f"{self._url}/v2/models/{self._endpoint.model}/infer"
        response = self._ask(
            url,
            self._client.infer(
                self._url, request, model_name=self._endpoint.model, headers=self._headers(), timeout=timeout_seconds
            ),
        )
        return Answer(predictions=_predictions(url, response, len(rows)))

    def answering(self, timeout_seconds: float) -> str | None:
        url = f"{self._url}/v2/models/{self._endpoint.model}/ready"
        asked = self._client.is_model_ready(
            self._url, self._endpoint.model, headers=self._headers(), timeout=timeout_seconds
        )
        try:
            ready = self._ask(url, asked)
        except LongshoreError:
            ready = False
        # Seldon's agent lets nothing but predictions through; who stands before it says whom it led to
        return _who(self._route, self._endpoint.revision) or (self._endpoint.revision if ready else None)

    def close(self) -> None:
        _run(self._client.close())

    def _headers(self) -> dict[str, str]:
        kept = {_ROUTE: self._kept} if self._kept else {}
        return {**self._endpoint.headers, **kept, **self._access.headers()}

    def _ask(self, url: str, asked: Coroutine[Any, Any, _T]) -> _T:
        import httpx

        try:
            return _run(asked)
        except httpx.HTTPStatusError as error:
            raise _refusal(url, error.response) from error
        except httpx.HTTPError as error:
            kind = DeployError if isinstance(error, httpx.TimeoutException) else NotReached
            raise no_trust(url, error) or kind(f"{url} did not answer: {_reason(error)}") from error
        except (KeyError, ValueError) as error:
            if self._status >= 400:
                # a gateway that knows nobody by this name says so without a word
                raise refused(url, self._status, "") from error
            raise DeployError(f"{url} answered what is not of the Open Inference Protocol: {error!r}") from error


def _reason(error: BaseException) -> str:
    """What lies behind an error, as far as anything is told: httpx often hands on no word of it."""
    return next((said for cause in causes(error) if (said := str(cause))), type(error).__name__)


def _refusal(url: str, response: httpx.Response) -> LongshoreError:
    told = response.headers
    return refused(url, response.status_code, response.text, told.get("Location"), told.get("Retry-After"))


class Grpc:
    """Open Inference Protocol over gRPC."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        self._endpoint, self._access = endpoint, access
        self._target = target_of(endpoint)
        self._url = self._target.url
        if self._target.secure:
            access.trust()
        self._client = _run(self._open())

    async def _open(self) -> Any:
        access, target = self._access, self._target
        return _kserve().InferenceGRPCClient(
            target.address,
            use_ssl=target.secure,
            root_certificates=access.ca_file,
            private_key=access.key_file or access.cert_file,
            certificate_chain=access.cert_file,
            channel_args=list(target.options),
        )

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        predictions: dict[int, Any] = {}
        for indices in without_gaps(rows):
            request = _request(self._endpoint, [rows[index] for index in indices], _no_null)
            response = self._ask(self._client.infer(request, timeout=timeout_seconds, headers=self._metadata()))
            answers = _predictions(self._url, response, len(indices))
            if len(answers) != len(indices):
                raise DeployError(
                    f"{self._url}: {len(indices)} rows were sent and {len(answers)} predictions came back"
                )
            predictions.update(zip(indices, answers, strict=True))
        return Answer(predictions=[predictions[index] for index in range(len(rows))])

    def answering(self, timeout_seconds: float) -> str | None:
        asked = self._client.is_model_ready(self._endpoint.model, timeout=timeout_seconds, headers=self._metadata())
        try:
            return self._endpoint.revision if self._ask(asked) else None
        except LongshoreError:
            return None

    def close(self) -> None:
        _run(self._client.close())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        given: Mapping[str, str] = {**self._target.metadata, **self._access.headers()}
        return tuple((name.lower(), value) for name, value in given.items())

    def _ask(self, asked: Coroutine[Any, Any, _T]) -> _T:
        import grpc

        try:
            return _run(asked)
        except grpc.aio.AioRpcError as error:
            raise refused_rpc(self._url, error) from error


def _no_null(tensor: Tensor) -> Any:
    # columns of other types come without gaps
    return float("nan") if tensor.datatype == "FP64" else None
