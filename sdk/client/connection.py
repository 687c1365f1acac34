"""A connection to an endpoint, in the protocol that it speaks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from longshore.client.access import Access
from longshore.client.answers import Answer
from longshore.client.tensors import Row, as_rows
from longshore.errors import ConfigError, DeployError, InvalidValue
from longshore.spec import Endpoint

if TYPE_CHECKING:
    from longshore.client.http import Http

__all__ = ["PROTOCOLS", "Client"]

_READY_SECONDS: Final = 5.0


class Transport(Protocol):
    """How one protocol asks."""

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        """One prediction per row."""
        ...

    def answering(self, timeout_seconds: float) -> str | None:
        """The revision that answers, None if nothing does; where it is not told, the endpoint's own."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


class Client:
    """Asks one endpoint, over connections that are kept. For one thread at a time; a context manager.

    Args:
        endpoint: Where to ask; its address must be one that this process reaches (``longshore.deployment.predict``
            forwards one inside a cluster).
        protocol: One of :data:`PROTOCOLS`; None is the first that the endpoint speaks. ``v2`` and ``grpc-v2`` go
            through the clients of KServe's SDK (extra ``kserve``), the others over gRPC take ``grpcio`` (extra
            ``grpc``).
        access: Token and certificates.
        timeout_seconds: For each request.
        sticky: Keep to the revision that answers first, as long as it is there: over ``v2``, on Seldon Core 2.

    Raises:
        ConfigError: If the endpoint does not speak the protocol, or a certificate cannot be read.
        MissingExtra: If what the protocol needs is not installed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        protocol: str | None = None,
        access: Access | None = None,
        timeout_seconds: float = 30,
        sticky: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.protocol = _settle(endpoint, protocol)
        if sticky and self.protocol != "v2":
            raise InvalidValue("sticky", sticky, "over v2, a client of Seldon Core 2 can keep to a revision")
        self._timeout_seconds = timeout_seconds
        access = access or Access()
        # what the user says counts for more
        self._ca = None if endpoint.ca is None or access.ca_file is not None else _CaFile.of(endpoint.ca)
        if self._ca is not None:
            access = replace(access, ca_file=self._ca.path)
        transport: Any = _TRANSPORTS[self.protocol](endpoint, access)
        if sticky:
            transport.sticky = True
        self._transport: Transport = transport

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._transport.close()
        if self._ca is not None:
            self._ca.remove()

    def predict(self, rows: Any) -> list[Any]:
        """Predict rows.

        Args:
            rows: Rows as :func:`longshore.client.as_rows` takes them: mappings from column to value, sequences of
                values, a DataFrame, an array.

        Returns:
            One prediction per row.

        Raises:
            InputError: If the model refuses the rows; the message is the server's.
            DeployError: If nothing answers or the answer is no prediction.
        """
        return self.ask(rows).predictions

    def ask(self, rows: Any) -> Answer:
        """Predict rows, and keep what :meth:`send_feedback` takes; see :meth:`predict`."""
        return self._transport.ask(as_rows(rows), self._timeout_seconds)

    def send_feedback(self, answer: Answer, reward: float, *, truth: Any = None) -> None:
        """Say how good an answer was, so that an experiment can be judged on it.

        The answer goes with it, and it says who gave it: routers learn from that, and the reward is counted for that
        model and version wherever the feedback comes by.

        Args:
            answer: What :meth:`ask` gave.
            reward: A finite number; the more the better.
            truth: What would have been right, one value for each row.

        Raises:
            ConfigError: If the protocol knows no feedback: only Seldon's does.
            InputError: If it is refused; the message is the server's.
            DeployError: If nothing answers.
        """
        transport: Any = self._transport
        if self.protocol not in _REWARDED:
            spoken = " or ".join(_REWARDED)
            raise ConfigError(
                f"{self.endpoint.name} is asked in {self.protocol}, and feedback is sent in {spoken} only"
            )
        if answer.response is None:
            raise InvalidValue("answer", "of another protocol", "give what Client.ask gave of the same service")
        feedback = {"request": answer.request or {}, "response": answer.response, "reward": float(reward)}
        if truth is not None:
            feedback["truth"] = {"data": {"names": [], "ndarray": _plain(truth)}}
        transport.send_feedback(feedback, self._timeout_seconds)

    def answering(self) -> str | None:
        """The revision that answers, None if nothing does; where it is not told, the endpoint's own."""
        return self._transport.answering(min(_READY_SECONDS, self._timeout_seconds))


@dataclass(frozen=True)
class _CaFile:
    """Certificates in a file, as the clients below take them."""

    path: str
    owner: int

    @classmethod
    def of(cls, text: str) -> _CaFile:
        descriptor, path = tempfile.mkstemp(prefix="longshore-ca-", suffix=".pem", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return cls(path, os.getpid())

    def remove(self) -> None:
        # a process that was forked leaves it to the one that it came from
        if self.owner == os.getpid():
            Path(self.path).unlink(missing_ok=True)


def _settle(endpoint: Endpoint, protocol: str | None) -> str:
    known = [name for name in PROTOCOLS if name in endpoint.protocols]
    if protocol is None:
        if not known:
            spoken = ", ".join(endpoint.protocols)
            raise ConfigError(
                f"{endpoint.name} speaks {spoken}, and rows can be asked for in {', '.join(PROTOCOLS)}"
                + (": use a client of OpenAI's API" if "openai" in endpoint.protocols else "")
            )
        return known[0]
    if protocol not in PROTOCOLS:
        raise InvalidValue("protocol", protocol, f"use one of {', '.join(PROTOCOLS)}")
    if protocol not in known:
        raise InvalidValue("protocol", protocol, f"{endpoint.name} speaks {', '.join(endpoint.protocols)}")
    return protocol


def _plain(truth: Any) -> list[Any]:
    """One value for each row, as JSON has them."""
    values = truth.tolist() if hasattr(truth, "tolist") else list(truth)
    return [value for row in as_rows([[value] for value in values]) if not isinstance(row, Mapping) for value in row]


class _V1:
    """KServe's V1 protocol, which is a JSON of rows: it needs no client of its own."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        from longshore.client.http import Http

        self._endpoint = endpoint
        self._http: Http = Http(endpoint, access)

    def ask(self, rows: list[Row], timeout_seconds: float) -> Answer:
        path = self._endpoint.predict_url.removeprefix(self._http.url)
        body = self._http.post(path, {"instances": rows}, timeout_seconds)
        predictions = body.get("predictions") if isinstance(body, dict) else None
        if not isinstance(predictions, list):
            raise DeployError(f"{self._http.url}{path} answered without a list of predictions: {str(body)[:200]}")
        return Answer(predictions=predictions)

    def answering(self, timeout_seconds: float) -> str | None:
        status, told = self._http.get("/v2/health/ready", timeout_seconds)
        if not status:
            return None
        revision = told.get("revision") if status == 200 and isinstance(told, dict) else None
        return revision if isinstance(revision, str) else self._endpoint.revision

    def close(self) -> None:
        self._http.close()


def _v2(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.open_inference import Rest

    return Rest(endpoint, access)


def _grpc_v2(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.open_inference import Grpc

    return Grpc(endpoint, access)


def _seldon(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.seldon import SeldonRest

    return SeldonRest(endpoint, access)


def _grpc_seldon(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.seldon import SeldonGrpc

    return SeldonGrpc(endpoint, access)


def _tensorflow(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.tensorflow import TensorflowRest

    return TensorflowRest(endpoint, access)


def _grpc_tensorflow(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.tensorflow import TensorflowGrpc

    return TensorflowGrpc(endpoint, access)


def _torchserve(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.torchserve import TorchServeRest

    return TorchServeRest(endpoint, access)


def _grpc_torchserve(endpoint: Endpoint, access: Access) -> Transport:
    from longshore.client.torchserve import TorchServeGrpc

    return TorchServeGrpc(endpoint, access)


_TRANSPORTS: Final[Mapping[str, Callable[[Endpoint, Access], Transport]]] = {
    "v1": _V1,
    "v2": _v2,
    "grpc-v2": _grpc_v2,
    "seldon": _seldon,
    "grpc-seldon": _grpc_seldon,
    "tensorflow": _tensorflow,
    "grpc-tensorflow": _grpc_tensorflow,
    # as KServe names it
    "grpc-v1": _grpc_tensorflow,
    "torchserve": _torchserve,
    "grpc-torchserve": _grpc_torchserve,
}
_REWARDED: Final = ("seldon", "grpc-seldon")

PROTOCOLS: Final = tuple(_TRANSPORTS)
"""What predictions can be asked for in."""
