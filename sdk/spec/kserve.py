"""What KServe is told beyond what every platform is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec.checks import (
    check_choice,
    check_env,
    check_image,
    check_names,
    check_range,
    check_subdomain,
)
from longshore.spec.huggingface import HuggingFaceOptions
from longshore.spec.values import Resources

__all__ = ["Batcher", "Container", "KServeOptions", "PayloadLogger"]

KServeMode = Literal["Standard", "Knative"]
KServeProtocol = Literal["v1", "v2", "grpc-v1", "grpc-v2"]
Autoscaler = Literal["hpa", "keda", "external"]

_MODES: Final = ("Standard", "Knative")
_PROTOCOLS: Final = ("v1", "v2", "grpc-v1", "grpc-v2")
_AUTOSCALERS: Final = ("hpa", "keda", "external")
_LOGGED: Final = ("all", "request", "response")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of one's own beside the model's: a transformer or an explainer.

    Args:
        image: Container image.
        command: Entry point in place of the image's.
        args: Arguments.
        env: Environment. Secrets do not belong here.
        secrets: Names of Secrets whose keys become environment variables.
        resources: Compute of one replica.
    """

    image: str
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        check_image("Container.image", self.image)
        for name in ("command", "args"):
            words = getattr(self, name)
            if isinstance(words, str) or not all(isinstance(word, str) for word in words):
                raise InvalidValue(f"Container.{name}", words, "use a list of strings")
            object.__setattr__(self, name, tuple(words))
        check_env(self, "env")
        check_names(self, "secrets")


@dataclass(frozen=True, kw_only=True)
class PayloadLogger:
    """Sends requests and answers on as CloudEvents.

    Args:
        url: Where to.
        mode: ``all``, ``request`` or ``response``.
    """

    url: str
    mode: str = "all"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidValue("PayloadLogger.url", self.url, "use an http or https URL")
        if parts.password is not None:
            raise InvalidValue("PayloadLogger.url", "http://***", "no password in a URL")
        check_choice("PayloadLogger.mode", self.mode, _LOGGED)


@dataclass(frozen=True, kw_only=True)
class Batcher:
    """Gathers V1 requests into batches before the server sees them.

    Args:
        max_size: Instances in a batch.
        max_latency_ms: How long a request waits for others, in milliseconds.
        timeout_seconds: For a batch to be answered.
    """

    max_size: int = 32
    max_latency_ms: int = 50
    timeout_seconds: int = 60

    def __post_init__(self) -> None:
        check_range("Batcher.max_size", self.max_size, 1)
        check_range("Batcher.max_latency_ms", self.max_latency_ms, 1)
        check_range("Batcher.timeout_seconds", self.timeout_seconds, 1)


@dataclass(frozen=True, kw_only=True)
class KServeOptions:
    """How KServe runs a service.

    Args:
        mode: ``Standard``: a Deployment; ``Knative``: a Knative Service, which scales by requests and to zero. What an
            InferenceService was made with it keeps.
        runtime: Name of the ServingRuntime or ClusterServingRuntime; None takes longshore's own for what longshore has
            packaged, and the one of KServe's that fits the format for anything else.
        protocol: ``v1``, ``v2``, ``grpc-v1`` or ``grpc-v2``; None takes the runtime's usual one. With longshore's own
            runtime ``grpc-v2`` is beside the others in Standard mode, and in their place in Knative mode.
        autoscaler: ``hpa``, ``keda`` or ``external`` (something else sets the replicas); None takes Kubernetes' own
            where the service has ``max_replicas``, and a fixed number otherwise. Standard mode only.
        storage_secret: Name of the Secret with the credentials of the model's storage, as KServe wants it annotated;
            None takes those of the service account.
        transformer: Works on requests and answers before and after the model.
        explainer: Answers ``:explain``.
        logger: Sends requests and answers on.
        batcher: Gathers requests.
        timeout_seconds: For a request, where Knative limits it.
        args: Arguments for the runtime's server beyond its own.
        huggingface: How the Hugging Face server serves a model of the format ``huggingface``.
    """

    mode: KServeMode = "Standard"
    runtime: str | None = None
    protocol: KServeProtocol | None = None
    autoscaler: Autoscaler | None = None
    storage_secret: str | None = None
    transformer: Container | None = None
    explainer: Container | None = None
    logger: PayloadLogger | None = None
    batcher: Batcher | None = None
    timeout_seconds: int | None = None
    args: Sequence[str] = ()
    huggingface: HuggingFaceOptions | None = None

    def __post_init__(self) -> None:
        check_choice("KServeOptions.mode", self.mode, _MODES)
        if self.protocol is not None:
            check_choice("KServeOptions.protocol", self.protocol, _PROTOCOLS)
        if self.autoscaler is not None:
            check_choice("KServeOptions.autoscaler", self.autoscaler, _AUTOSCALERS)
            if self.mode == "Knative":
                raise InvalidValue("KServeOptions.autoscaler", self.autoscaler, "in Knative mode, Knative scales")
        for name in ("runtime", "storage_secret"):
            if (value := getattr(self, name)) is not None:
                check_subdomain(f"KServeOptions.{name}", value)
        if self.timeout_seconds is not None:
            check_range("KServeOptions.timeout_seconds", self.timeout_seconds, 1)
        if isinstance(self.args, str) or not all(isinstance(word, str) for word in self.args):
            raise InvalidValue("KServeOptions.args", self.args, "use a list of strings")
        object.__setattr__(self, "args", tuple(self.args))
