"""What came of a release: where it answers, and how it is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import check_dns_label, freeze

if TYPE_CHECKING:
    from longshore.client import Access

__all__ = ["Endpoint", "Health", "HealthState", "service_of"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a service answers.

    Args:
        name: Name of the service.
        url: Base URL that clients use.
        model: Name of the model in request paths.
        revision: The revision that answers at ``revision_url``.
        revision_url: Base URL of that very revision, if the platform has one.
        revision_model: Name of the model in request paths there, where it is another one.
        revision_headers: Sent with every request there, in place of those of the same name.
        grpc_url: Where gRPC is spoken, if not at ``url``.
        external_url: What the platform calls the service outside the cluster. An ingress knows the service by that host
            name, which may have no address of its own: see :meth:`through`.
        ingress_path: Where an ingress knows the service by no host name: the path below its address, such as
            ``/seldon/NAMESPACE/NAME``, or nothing if the headers tell it. gRPC has no path: there the headers do.
        protocols: What is spoken there: ``v1`` (KServe V1), ``v2`` (Open Inference Protocol), ``seldon`` (Seldon
            Core 1), ``tensorflow`` (TensorFlow Serving), ``torchserve`` (its own), each of the last four also over
            gRPC (``grpc-v2``, ``grpc-seldon``, ``grpc-tensorflow``, ``grpc-torchserve``), ``openai`` (OpenAI's).
        headers: Sent with every request, over gRPC as metadata: the host header of an ingress, or what a gateway knows
            the service by, such as ``seldon-model``.
        takes: ``rows`` where a longshore server answers, which takes rows by column name as they are; ``tensors`` where
            another one does.
        ca: Certificates (PEM) of the authorities that vouch for it, where they are not the system's.
    """

    name: str
    url: str
    model: str
    revision: str
    revision_url: str | None = None
    grpc_url: str | None = None
    external_url: str | None = None
    ingress_path: str | None = None
    protocols: tuple[str, ...] = ("v1",)
    headers: Mapping[str, str] = field(default_factory=dict)
    revision_model: str | None = None
    revision_headers: Mapping[str, str] = field(default_factory=dict)
    takes: Literal["rows", "tensors"] = "rows"
    ca: str | None = None

    def __post_init__(self) -> None:
        check_dns_label("Endpoint.name", self.name)
        for name in ("url", "revision_url", "grpc_url", "external_url"):
            value = getattr(self, name)
            if value is not None and urlsplit(value).scheme not in ("http", "https", "grpc", "grpcs"):
                raise InvalidValue(f"Endpoint.{name}", value, "use an http, https, grpc or grpcs URL")
        if self.ingress_path and not self.ingress_path.startswith("/"):
            raise InvalidValue("Endpoint.ingress_path", self.ingress_path, "begin it with a slash")
        object.__setattr__(self, "protocols", tuple(self.protocols))
        for name in ("headers", "revision_headers"):
            freeze(self, name)

    @property
    def in_cluster(self) -> tuple[str, str] | None:
        """Service and namespace where the URL is a name in a cluster's own DNS, which only pods there can ask."""
        return service_of(self.url)

    @property
    def predict_url(self) -> str:
        """URL of the V1 predict call."""
        return f"{self.url.rstrip('/')}/v1/models/{self.model}:predict"

    def at_revision(self) -> Endpoint:
        """The endpoint where its revision alone answers; itself, if the platform has none."""
        if self.revision_url is None:
            return self
        return replace(
            self,
            url=self.revision_url,
            model=self.revision_model or self.model,
            headers={**self.headers, **self.revision_headers},
        )

    def through(self, address: str, host: str | None = None) -> Endpoint:
        """The endpoint as it is asked through an ingress.

        Args:
            address: URL of the ingress, such as ``https://203.0.113.7``.
            host: Host name by which it knows the service; None is that of ``external_url``, and needed only where there
                is no ``ingress_path``.

        Raises:
            InvalidValue: If the address is no URL, or no host name is known.
        """
        host = host or urlsplit(self.external_url or "").netloc
        if not host and self.ingress_path is None:
            raise InvalidValue("host", host, f"the platform gives {self.name} no external name: say how it is known")
        headers = {**self.headers, "Host": host} if host else self.headers
        url, grpc = address.rstrip("/") + (self.ingress_path or ""), address if self.ingress_path else None
        # a revision that is told apart by its headers is so behind an ingress, too
        own = url if self.revision_url == self.url else None
        # an ingress has a certificate of its own
        return replace(self, url=url, revision_url=own, grpc_url=grpc, headers=headers, ca=None)

    def predict(
        self, rows: Any, *, protocol: str | None = None, access: Access | None = None, timeout_seconds: float = 30
    ) -> list[Any]:
        """Predict rows: :func:`longshore.deployment.predict`."""
        # the one thing here that acts: it is what everybody types first
        from longshore.deployment import predict

        return predict(self, rows, protocol=protocol, access=access, timeout_seconds=timeout_seconds)


def service_of(url: str) -> tuple[str, str] | None:
    """Service and namespace where a URL is a name in a cluster's own DNS."""
    service, _, rest = (urlsplit(url).hostname or "").partition(".")
    namespace, _, domain = rest.partition(".")
    return (service, namespace) if domain == "svc" or domain.startswith("svc.") else None


class HealthState(enum.StrEnum):
    """What is known of a revision. There is no "unknown": not yet known is PROGRESSING."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    STALLED = "Stalled"
    FAILED = "Failed"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The verdict on one revision.

    Args:
        state: Ready, Progressing, Stalled or Failed. Stalled goes on only if something outside the release changes,
            such as a node that is added or quota that is freed. Failed is final: waiting longer would not help.
        why: What is missing or what broke, in the platform's own words.
    """

    state: HealthState
    why: str = ""

    def __post_init__(self) -> None:
        if self.state is not HealthState.READY and not self.why:
            raise InvalidValue("Health.why", self.why, f"{self.state} needs a reason")

    @classmethod
    def ready(cls) -> Health:
        """The revision answers requests."""
        return cls(state=HealthState.READY)

    @classmethod
    def progressing(cls, why: str) -> Health:
        """The revision is on its way; ``why`` says what is still missing."""
        return cls(state=HealthState.PROGRESSING, why=why)

    @classmethod
    def stalled(cls, why: str) -> Health:
        """The revision waits for something that the release does not bring."""
        return cls(state=HealthState.STALLED, why=why)

    @classmethod
    def failed(cls, why: str) -> Health:
        """The revision will not come up by itself."""
        return cls(state=HealthState.FAILED, why=why)
