"""What came of a release: where it answers, and how it is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import check_dns_label, freeze

__all__ = ["Endpoint", "Health", "HealthState"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a service answers.

    Args:
        name: Name of the service.
        url: Base URL that clients use.
        model: Name of the model in request paths.
        revision: The revision that answers at ``revision_url``.
        revision_url: Base URL of that very revision, if the platform has one.
        protocols: What is spoken there: ``v1`` (KServe V1), ``v2`` (Open Inference Protocol), ``grpc-v2`` (the latter
            over gRPC), ``openai`` (OpenAI's).
        headers: Sent with every request, such as the host header of an ingress.
        takes: ``rows`` where a longshore server answers, which takes rows by column name as they are; ``tensors`` where
            another one does.
    """

    name: str
    url: str
    model: str
    revision: str
    revision_url: str | None = None
    protocols: tuple[str, ...] = ("v1",)
    headers: Mapping[str, str] = field(default_factory=dict)
    takes: Literal["rows", "tensors"] = "rows"

    def __post_init__(self) -> None:
        check_dns_label("Endpoint.name", self.name)
        for name in ("url", "revision_url"):
            value = getattr(self, name)
            if value is not None and urlsplit(value).scheme not in ("http", "https", "grpc", "grpcs"):
                raise InvalidValue(f"Endpoint.{name}", value, "use an http, https, grpc or grpcs URL")
        object.__setattr__(self, "protocols", tuple(self.protocols))
        freeze(self, "headers")

    @property
    def in_cluster(self) -> tuple[str, str] | None:
        """Service and namespace where the URL is a name in a cluster's own DNS, which only pods there can ask."""
        service, _, rest = (urlsplit(self.url).hostname or "").partition(".")
        namespace, _, domain = rest.partition(".")
        return (service, namespace) if domain == "svc" or domain.startswith("svc.") else None

    @property
    def predict_url(self) -> str:
        """URL of the V1 predict call."""
        return f"{self.url.rstrip('/')}/v1/models/{self.model}:predict"


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
