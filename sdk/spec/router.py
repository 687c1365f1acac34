"""What stands in front of a service's revisions and shares the requests out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import check_choice, check_dns_label, check_image, check_range, check_subdomain

__all__ = ["ROUTERS", "Router", "Tls"]

RouterKind = Literal["nginx", "gateway-api", "istio"]
ROUTERS: Final = ("nginx", "gateway-api", "istio")

# what of it gets into Nginx's configuration has no other characters
_CLIENT: Final = re.compile(r"address|header:[A-Za-z][A-Za-z0-9-]{0,63}|cookie:[A-Za-z0-9_]{1,64}")
_NGINX_ONLY: Final = {
    "client": "address",
    "sticky": False,
    "requests_per_second": None,
    "timeout_seconds": 60,
    "tls": None,
    "access_log": False,
}


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The certificate of a service's own Nginx: where it is, and never its key.

    Args:
        secret: On Kubernetes: a Secret of type ``kubernetes.io/tls`` in the service's namespace.
        cert_file: On this machine: absolute path of the certificate with its chain (PEM).
        key_file: On this machine: absolute path of its private key (PEM, without a password).
        host: The name that the certificate is for, where that is not the service's own address; clients are sent there.
        ca: Certificates (PEM) of the authorities that vouch for it, where clients do not trust them anyway.
    """

    secret: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    host: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        files = {"cert_file": self.cert_file, "key_file": self.key_file}
        given = [name for name, path in files.items() if path is not None]
        if (self.secret is None) == (not given):
            raise InvalidValue("Tls.secret", self.secret, "name a Secret, or on this machine cert_file and key_file")
        if len(given) == 1:
            raise InvalidValue(f"Tls.{given[0]}", files[given[0]], "cert_file and key_file go together")
        if self.secret is not None:
            check_subdomain("Tls.secret", self.secret)
        for name in given:
            path = files[name]
            if not isinstance(path, str) or not PurePath(path).is_absolute() or "\0" in path:
                raise InvalidValue(f"Tls.{name}", path, "use an absolute path: it is read by who starts elsewhere, too")
        if self.host is not None:
            check_subdomain("Tls.host", self.host)
        if self.ca is not None:
            self._check_ca(self.ca)

    @staticmethod
    def _check_ca(text: str) -> None:
        if not isinstance(text, str) or "-----BEGIN CERTIFICATE-----" not in text:
            raise InvalidValue("Tls.ca", "...", "give certificates as PEM: the text, not the path of a file")
        if "PRIVATE KEY" in text:
            raise InvalidValue("Tls.ca", "...", "there is a private key in it, which clients must not have")


@dataclass(frozen=True, kw_only=True)
class Router:
    """Shares a service's requests out to its revisions, each of which runs beside the others.

    Args:
        kind: ``nginx``: an Nginx of the service's own, which needs nothing in the cluster; ``gateway-api``: an
            HTTPRoute; ``istio``: a VirtualService.
        gateway: The Gateway that requests come in by, ``NAME`` or ``NAMESPACE/NAME``; ``gateway-api`` needs one, and
            ``istio`` takes the mesh itself without.
        hosts: Host names of the service at the gateway.
        url: Where clients reach the gateway; None leaves the service's name in the cluster as its address, where the
            gateway has no say.
        replicas: Pods of the service's own Nginx.
        image: Its image; None is the official one that needs no root.
        client: What tells one client of the service's own Nginx from another: ``address``, ``header:NAME`` or
            ``cookie:NAME``; requests without that header or cookie go by address.
        sticky: Whether a client keeps to one revision; otherwise each request is drawn by itself.
        requests_per_second: How many requests a client may make; more are answered with 429. None is no limit.
        timeout_seconds: How long a revision may take for an answer; then it is 504.
        tls: Has clients of the service's own Nginx come by HTTPS.
        access_log: Whether it logs a line of JSON for each request.
    """

    kind: RouterKind
    gateway: str | None = None
    hosts: Sequence[str] = ()
    url: str | None = None
    replicas: int = 2
    image: str | None = None
    client: str = "address"
    sticky: bool = False
    requests_per_second: int | None = None
    timeout_seconds: int = 60
    tls: Tls | None = None
    access_log: bool = False

    def __post_init__(self) -> None:
        check_choice("Router.kind", self.kind, ROUTERS)
        self._check_gateway()
        if isinstance(self.hosts, str):
            raise InvalidValue("Router.hosts", self.hosts, "use a list of host names")
        for host in self.hosts:
            check_subdomain("Router.hosts", host)
        object.__setattr__(self, "hosts", tuple(self.hosts))
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidValue("Router.url", self.url, "use an http or https URL")
            if parts.password is not None:
                raise InvalidValue("Router.url", f"{parts.scheme}://***", "no password in a URL")
        check_range("Router.replicas", self.replicas, 1)
        if self.image is not None:
            check_image("Router.image", self.image)
        if not _CLIENT.fullmatch(self.client):
            raise InvalidValue("Router.client", self.client, "use address, header:NAME or cookie:NAME")
        if self.requests_per_second is not None:
            check_range("Router.requests_per_second", self.requests_per_second, 1)
        check_range("Router.timeout_seconds", self.timeout_seconds, 1)

    def _check_gateway(self) -> None:
        if self.kind == "nginx":
            for name in ("gateway", "hosts", "url"):
                if getattr(self, name):
                    raise InvalidValue(f"Router.{name}", getattr(self, name), "the service's own Nginx has no gateway")
        elif self.image is not None:
            raise InvalidValue("Router.image", self.image, "only the kind nginx runs an image")
        else:
            for name, value in _NGINX_ONLY.items():
                if getattr(self, name) != value:
                    raise InvalidValue(
                        f"Router.{name}",
                        getattr(self, name),
                        f"only the kind nginx has it: {self.kind} has its own way",
                    )
        if self.gateway is None:
            if self.kind == "gateway-api":
                raise InvalidValue("Router.gateway", None, "name the Gateway: NAME or NAMESPACE/NAME")
            if self.hosts or self.url:
                raise InvalidValue("Router.hosts", list(self.hosts), "host names need a gateway")
            return
        namespace, _, name = self.gateway.rpartition("/")
        check_subdomain("Router.gateway", name)
        if namespace:
            check_dns_label("Router.gateway", namespace)
