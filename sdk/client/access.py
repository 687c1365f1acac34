"""How a client proves who it is, and whom it trusts."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from longshore.errors import ConfigError, InvalidValue
from longshore.spec import Endpoint
from longshore.spec.outcome import service_of

__all__ = ["Access", "tls_name"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """What an endpoint asks of its clients, beside its headers. Nothing here is ever written down or logged.

    Args:
        token: A bearer token, or what gives one for each request.
        token_file: File with a bearer token, read for each request: Kubernetes renews those of service accounts.
        ca_file: Certificates (PEM) of the authorities to trust, in place of the system's.
        cert_file: The client's own certificate (PEM), where the server wants one.
        key_file: Its private key, if it is not in the same file.
    """

    token: str | Callable[[], str] | None = field(default=None, repr=False)
    token_file: str | Path | None = None
    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if self.token is not None and self.token_file is not None:
            raise InvalidValue("Access.token_file", str(self.token_file), "give a token or a file with one, not both")
        if self.key_file is not None and self.cert_file is None:
            raise InvalidValue("Access.key_file", str(self.key_file), "give cert_file with it")

    def headers(self) -> Mapping[str, str]:
        """The headers that bear the token; none without one.

        Raises:
            ConfigError: If the file cannot be read, or what is there is no token.
        """
        token = self._token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def trust(self) -> ssl.SSLContext:
        """What TLS connections are made with.

        Raises:
            ConfigError: If a certificate cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file is not None)
            raise ConfigError(f"no TLS with {files}: {error}") from error
        return context

    def _token(self) -> str | None:
        if self.token_file is not None:
            try:
                token = Path(self.token_file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"the token in {self.token_file} cannot be read: {error}") from error
        elif self.token is None:
            return None
        else:
            token = self.token if isinstance(self.token, str) else self.token()
        token = token.strip()
        # a line break would begin another header
        if not token or not token.isascii() or not token.isprintable():
            where = "Access.token" if self.token_file is None else str(self.token_file)
            raise ConfigError(f"{where} holds no bearer token: it is empty or has characters that a header cannot have")
        return token


def tls_name(endpoint: Endpoint, url: str) -> str | None:
    """Whose certificate to ask for, where it is not the address's own.

    An ingress that is asked at its IP address, or at its name in a cluster, has certificates for the names of what is
    behind it.
    """
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        if service_of(url) is None:
            return None
    host = next((value for name, value in endpoint.headers.items() if name.lower() == "host"), None)
    return None if host is None else urlsplit(f"//{host}").hostname
