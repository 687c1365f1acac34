"""What stands in front of a service's revisions and shares the requests out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import check_choice, check_dns_label, check_image, check_range, check_subdomain

__all__ = ["ROUTERS", "Router"]

RouterKind = Literal["nginx", "gateway-api", "istio"]
ROUTERS: Final = ("nginx", "gateway-api", "istio")


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
    """

    kind: RouterKind
    gateway: str | None = None
    hosts: Sequence[str] = ()
    url: str | None = None
    replicas: int = 2
    image: str | None = None

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

    def _check_gateway(self) -> None:
        if self.kind == "nginx":
            for name in ("gateway", "hosts", "url"):
                if getattr(self, name):
                    raise InvalidValue(f"Router.{name}", getattr(self, name), "the service's own Nginx has no gateway")
        elif self.image is not None:
            raise InvalidValue("Router.image", self.image, "only the kind nginx runs an image")
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
