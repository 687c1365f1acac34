"""A connection to an endpoint, in the protocol that it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from longshore.client.access import Access, tls_name
from longshore.client.refusals import refused
from longshore.client.tensors import Row, as_rows
from longshore.errors import ConfigError, DeployError, InvalidValue
from longshore.spec import Endpoint

if TYPE_CHECKING:
    import requests

__all__ = ["PROTOCOLS", "Client", "predict"]

PROTOCOLS: Final = ("v1", "v2", "grpc-v2")
"""What predictions can be asked for in, as KServe names it."""

_READY_SECONDS: Final = 5.0
_NOBODY_YET: Final = frozenset({429, 502, 503, 504})
"""Of who stands in front, or of a server that does not answer just now: these do not tell who would."""


class Transport(Protocol):
    """How one protocol asks."""

    def predict(self, rows: list[Row], timeout_seconds: float) -> list[Any]:
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
        protocol: One of :data:`PROTOCOLS`; None is the first of them that the endpoint speaks. ``v2`` and ``grpc-v2``
            go through the clients of KServe's SDK (extra ``kserve``).
        access: Token and certificates.
        timeout_seconds: For each request.

    Raises:
        ConfigError: If the endpoint does not speak the protocol, or a certificate cannot be read.
        MissingExtra: If the protocol needs KServe's SDK and it is not installed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        protocol: str | None = None,
        access: Access | None = None,
        timeout_seconds: float = 30,
    ) -> None:
        self.endpoint = endpoint
        self.protocol = _settle(endpoint, protocol)
        self._timeout_seconds = timeout_seconds
        self._transport = _transport(endpoint, self.protocol, access or Access())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._transport.close()

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
        return self._transport.predict(as_rows(rows), self._timeout_seconds)

    def answering(self) -> str | None:
        """The revision that answers, None if nothing does; where it is not told, the endpoint's own."""
        return self._transport.answering(min(_READY_SECONDS, self._timeout_seconds))


def predict(
    endpoint: Endpoint,
    rows: Any,
    *,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
) -> list[Any]:
    """Predict rows over a connection of their own; see :class:`Client`."""
    with Client(endpoint, protocol=protocol, access=access, timeout_seconds=timeout_seconds) as client:
        return client.predict(rows)


def _settle(endpoint: Endpoint, protocol: str | None) -> str:
    known = [name for name in PROTOCOLS if name in endpoint.protocols]
    if protocol is None:
        if not known:
            spoken = ", ".join(endpoint.protocols)
            raise ConfigError(
                f"{endpoint.name} speaks {spoken}, and rows can be asked for in {', '.join(PROTOCOLS)} only"
                + (": use a client of OpenAI's API" if "openai" in endpoint.protocols else "")
            )
        return known[0]
    if protocol not in PROTOCOLS:
        raise InvalidValue("protocol", protocol, f"use one of {', '.join(PROTOCOLS)}")
    if protocol not in known:
        raise InvalidValue("protocol", protocol, f"{endpoint.name} speaks {', '.join(endpoint.protocols)}")
    return protocol


def _transport(endpoint: Endpoint, protocol: str, access: Access) -> Transport:
    if protocol == "v1":
        return _V1(endpoint, access)
    from longshore.client import open_inference

    return (open_inference.Rest if protocol == "v2" else open_inference.Grpc)(endpoint, access)


def _named(name: str) -> requests.adapters.HTTPAdapter:
    """Connections that ask for a certificate of ``name``, whatever the address is."""
    from requests.adapters import HTTPAdapter

    class Named(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, server_hostname=name, assert_hostname=name)

    return Named()


class _V1:
    """KServe's V1 protocol, which is a JSON of rows: it needs no client of its own."""

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        import requests

        self._endpoint, self._access = endpoint, access
        self._session: requests.Session = requests.Session()
        self._session.headers.update(endpoint.headers)
        # a proxy set for the internet has no business with a cluster's or this machine's addresses
        self._session.trust_env = False
        if access.ca_file is not None:
            self._session.verify = str(access.ca_file)
        if access.cert_file is not None:
            key = access.key_file or access.cert_file
            self._session.cert = (str(access.cert_file), str(key))
        if endpoint.url.startswith("https"):
            access.trust()
            if (name := tls_name(endpoint, endpoint.url)) is not None:
                self._session.mount("https://", _named(name))

    def predict(self, rows: list[Row], timeout_seconds: float) -> list[Any]:
        import requests

        url = self._endpoint.predict_url
        try:
            response = self._session.post(
                url,
                json={"instances": rows},
                headers=dict(self._access.headers()),
                timeout=timeout_seconds,
                # a login page would answer 200
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            raise DeployError(f"{url} did not answer: {error}") from error
        if response.status_code != 200:
            told = response.headers
            raise refused(url, response.status_code, response.text, told.get("Location"), told.get("Retry-After"))
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        predictions = body.get("predictions") if isinstance(body, dict) else None
        if not isinstance(predictions, list):
            raise DeployError(f"{url} answered without a list of predictions: {response.text[:200]}")
        return predictions

    def answering(self, timeout_seconds: float) -> str | None:
        import requests

        url = f"{self._endpoint.url.rstrip('/')}/v2/health/ready"
        try:
            response = self._session.get(url, headers=dict(self._access.headers()), timeout=timeout_seconds)
            if response.status_code in _NOBODY_YET:
                return None
            told = response.json() if response.status_code == 200 else None
        except requests.JSONDecodeError:
            told = None
        except requests.RequestException:
            return None
        revision = told.get("revision") if isinstance(told, dict) else None
        return revision if isinstance(revision, str) else self._endpoint.revision

    def close(self) -> None:
        self._session.close()
