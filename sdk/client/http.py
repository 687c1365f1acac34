"""JSON over HTTP, on connections that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from longshore.client.access import Access, tls_name
from longshore.client.refusals import NotReached, no_trust, refused
from longshore.errors import DeployError
from longshore.spec import Endpoint

if TYPE_CHECKING:
    import requests

__all__ = ["Http"]

_NOBODY_YET: Final = frozenset({429, 502, 503, 504})
"""Of who stands in front, or of a server that does not answer just now: these do not tell who would."""


class Http:
    """Asks one endpoint.

    Args:
        endpoint: Where to ask.
        access: Token and certificates.

    Raises:
        ConfigError: If a certificate cannot be read.
    """

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        import requests

        self.url = endpoint.url.rstrip("/")
        self._access = access
        self._session: requests.Session = requests.Session()
        self._session.headers.update({**endpoint.headers, "Content-Type": "application/json"})
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

    def send(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """What a request is answered, whatever its status.

        Args:
            method: Such as ``PUT``.
            path: Below the endpoint's URL.
            timeout_seconds: How long to wait.
            body: What to send.
            params: The query.

        Raises:
            DeployError: If nothing answers.
        """
        import requests

        url = f"{self.url}{path}"
        # what has no body is of no type either
        headers = {**({"Content-Type": None} if body is None else {}), **self._access.headers()}
        try:
            return self._session.request(
                method,
                url,
                data=body,
                params=params,
                headers=headers,
                timeout=timeout_seconds,
                # a login page would answer 200
                allow_redirects=False,
            )
        except requests.Timeout as error:
            raise DeployError(f"{url} did not answer: {error}") from error
        except requests.exceptions.SSLError as error:
            raise no_trust(url, error) or NotReached(f"{url} did not answer: {error}") from error
        except (requests.RequestException, OSError) as error:
            raise NotReached(f"{url} did not answer: {error}") from error

    def post(self, path: str, content: Any, timeout_seconds: float) -> Any:
        """What a POST of JSON is answered, None if that is no JSON.

        Args:
            path: Below the endpoint's URL.
            content: What to send; a float that is no number is sent as NaN, which is no JSON, as it is.
            timeout_seconds: How long to wait.

        Raises:
            DeployError: If nothing answers, or not 200 by no fault of the request.
            InputError: If the request is refused.
        """
        import requests

        response = self.send("POST", path, body=json.dumps(content).encode(), timeout_seconds=timeout_seconds)
        if response.status_code != 200:
            url, told = f"{self.url}{path}", response.headers
            raise refused(url, response.status_code, response.text, told.get("Location"), told.get("Retry-After"))
        try:
            return response.json()
        except requests.JSONDecodeError:
            return None

    def get(self, path: str, timeout_seconds: float) -> tuple[int, Any]:
        """Status and JSON of what a GET is answered, the latter None if it is none.

        The status is 0 if nobody answers, or who stands in front of a server that does not just now.

        Args:
            path: Below the endpoint's URL.
            timeout_seconds: How long to wait.

        Raises:
            DeployError: If its certificate is not to be trusted.
        """
        import requests

        url = f"{self.url}{path}"
        try:
            response = self._session.get(
                url,
                headers=dict(self._access.headers()),
                timeout=timeout_seconds,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            # waiting would not help
            if (told := no_trust(url, error)) is not None:
                raise told from error
            return 0, None
        except requests.RequestException:
            return 0, None
        if response.status_code in _NOBODY_YET:
            return 0, None
        try:
            return response.status_code, response.json()
        except requests.JSONDecodeError:
            return response.status_code, None

    def close(self) -> None:
        """End its connections."""
        self._session.close()


def _named(name: str) -> requests.adapters.HTTPAdapter:
    """Connections that ask for a certificate of ``name``, whatever the address is."""
    from requests.adapters import HTTPAdapter

    class Named(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, server_hostname=name, assert_hostname=name)

    return Named()
