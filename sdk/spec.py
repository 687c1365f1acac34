"""What a person asks to be served, as plain values.

All types are frozen and check themselves when built: a value that exists is valid. Nothing here opens a
connection or imports a platform's client.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from longshore.errors import InvalidValue

__all__ = [
    "Endpoint",
    "Health",
    "HealthState",
    "ModelSource",
    "Release",
    "Resources",
    "Scaling",
    "Service",
    "Traffic",
]

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_QUANTITY: Final = re.compile(r"(\d+(\.\d+)?|\.\d+)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][-+]?\d+)?")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE: Final = re.compile(
    r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d+)?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")

FRAMEWORKS: Final = ("fastapi",)
ScalingMetric = Literal["cpu", "memory", "concurrency", "rps"]
_SCALING_METRICS: Final = ("cpu", "memory", "concurrency", "rps")


def check_dns_label(field_name: str, value: str, *, max_length: int = 63) -> None:
    """Refuse what Kubernetes would refuse as a label-style name (RFC 1123).

    Raises:
        InvalidValue: If ``value`` is not a DNS label of at most ``max_length`` characters.
    """
    if not isinstance(value, str) or len(value) > max_length or not _LABEL.fullmatch(value):
        raise InvalidValue(
            field_name,
            value,
            f"use 1 to {max_length} lower-case letters, digits and hyphens, "
            "starting and ending with a letter or digit (RFC 1123 label)",
        )


def check_service_name(field_name: str, value: str, *, max_length: int = 63) -> None:
    """Refuse a name that cannot name a Kubernetes Service (RFC 1035: it starts with a letter)."""
    check_dns_label(field_name, value, max_length=max_length)
    if not _LABEL_1035.fullmatch(value):
        raise InvalidValue(field_name, value, "start with a letter: it names a Kubernetes Service (RFC 1035 label)")


def check_subdomain(field_name: str, value: str) -> None:
    """Refuse what Kubernetes would refuse as the name of a Secret or service account (RFC 1123 subdomain)."""
    if not isinstance(value, str) or len(value) > 253 or not all(_LABEL.fullmatch(part) for part in value.split(".")):
        raise InvalidValue(
            field_name, value, "use lower-case letters, digits, hyphens and dots, at most 253 (RFC 1123 subdomain)"
        )


def check_image(field_name: str, value: str) -> None:
    """Refuse what is no image reference, such as ``registry.example/team/server:1.0``."""
    if not isinstance(value, str) or len(value) > 512 or not _IMAGE.fullmatch(value):
        raise InvalidValue(field_name, value, "use an image reference: [registry[:port]/]path[:tag][@sha256:digest]")


def check_quantity(field_name: str, value: str) -> None:
    """Refuse what is not a Kubernetes resource quantity, such as ``500m`` or ``1Gi``."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise InvalidValue(field_name, value, 'use a Kubernetes quantity, such as "500m", "2" or "1Gi"')


def check_uri(field_name: str, value: str) -> None:
    """Refuse what is neither a path nor a URI with a scheme; credentials in a URI are refused too."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(field_name, value, "give a path or a URI, such as s3://bucket/models/iris")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise InvalidValue(field_name, value, "control characters are not allowed in a path or URI")
    if "://" not in value:
        return
    scheme, _, rest = value.partition("://")
    if not _SCHEME.fullmatch(scheme):
        raise InvalidValue(field_name, value, "a URI starts with a scheme of letters, such as s3:// or https://")
    if not rest:
        raise InvalidValue(field_name, value, "something must follow the scheme")
    if urlsplit(value).password is not None:
        redacted = re.sub(r"://[^@]*@", "://***@", value)
        raise InvalidValue(field_name, redacted, "no password in a URI: name a Kubernetes Secret instead")


def _check_range(field_name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise InvalidValue(field_name, value, f"use a whole number {bound}")


def _freeze(owner: object, name: str) -> None:
    object.__setattr__(owner, name, MappingProxyType(dict(getattr(owner, name))))


def _check_labels(field_name: str, labels: Mapping[str, str], *, values: bool) -> None:
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if not _QUALIFIED.fullmatch(key) or len(name) > 63 or len(prefix) > 253:
            raise InvalidValue(f"{field_name} key", key, "use [prefix/]name with letters, digits, '-', '_' and '.'")
        if not isinstance(value, str):
            raise InvalidValue(f"{field_name}[{key!r}]", value, "use a string")
        if values and (len(value) > 63 or not _LABEL_VALUE.fullmatch(value)):
            raise InvalidValue(f"{field_name}[{key!r}]", value, "use at most 63 letters, digits, '-', '_' and '.'")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a trained model lies and how it is recognised.

    Args:
        uri: Directory of the model files: a path, or a URI such as ``s3://bucket/models/iris/3``.
        format: What the files are: ``sklearn``, ``xgboost``, ``lightgbm``, ``onnx``, ``pytorch``, ...
        name: Name of the model, as clients write it in a request path.
        version: Version in the registry, as a string of digits, or None outside a registry.
        digest: ``sha256:`` and 64 hex digits over the directory's content, or None if it was never recorded.
    """

    uri: str
    format: str
    name: str
    version: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        check_uri("ModelSource.uri", self.uri)
        check_dns_label("ModelSource.format", self.format)
        check_dns_label("ModelSource.name", self.name)
        if self.version is not None and not (
            isinstance(self.version, str) and self.version.isascii() and self.version.isdecimal()
        ):
            raise InvalidValue("ModelSource.version", self.version, "use the registry's version number, such as '3'")
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise InvalidValue("ModelSource.digest", self.digest, "use 'sha256:' and 64 lower-case hex digits")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Compute for one replica, as Kubernetes quantities; None leaves the platform's default.

    Args:
        cpu: CPU, such as ``500m`` or ``2``.
        memory: Memory, such as ``512Mi``.
        gpu: Number of GPUs.
    """

    cpu: str | None = None
    memory: str | None = None
    gpu: int = 0

    def __post_init__(self) -> None:
        for name in ("cpu", "memory"):
            if (value := getattr(self, name)) is not None:
                check_quantity(f"Resources.{name}", value)
        _check_range("Resources.gpu", self.gpu, 0)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How many replicas serve, and by what measure their number changes.

    Args:
        min_replicas: Lower bound; 0 lets platforms that can do it scale to zero.
        max_replicas: Upper bound; None fixes the number at ``min_replicas`` (at least 1).
        metric: ``cpu`` and ``memory`` in percent of the request; ``concurrency`` and ``rps`` per replica.
        target: The value of ``metric`` that scaling aims at.
    """

    min_replicas: int = 1
    max_replicas: int | None = None
    metric: ScalingMetric = "cpu"
    target: int = 80

    def __post_init__(self) -> None:
        _check_range("Scaling.min_replicas", self.min_replicas, 0)
        if self.max_replicas is not None:
            _check_range("Scaling.max_replicas", self.max_replicas, max(1, self.min_replicas))
        if self.metric not in _SCALING_METRICS:
            raise InvalidValue("Scaling.metric", self.metric, f"use one of {', '.join(_SCALING_METRICS)}")
        _check_range("Scaling.target", self.target, 1, 100 if self.metric in ("cpu", "memory") else None)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The share of requests that a revision answers.

    Args:
        percent: Whole percent from 0 to 100. At 0 the revision runs and can be asked at its own address only.
    """

    percent: int = 100

    def __post_init__(self) -> None:
        _check_range("Traffic.percent", self.percent, 0, 100)


@dataclass(frozen=True, kw_only=True)
class Service:
    """A named endpoint that outlives the models behind it.

    Args:
        name: RFC 1035 label of at most 53 characters (platforms append suffixes of their own).
        namespace: Kubernetes namespace; the local runtime ignores it.
        framework: Web framework of the ``local`` and ``rest`` targets.
        port: Port that clients use; None lets the platform choose.
        resources: Compute of one replica.
        scaling: Number of replicas.
        service_account: Kubernetes service account of the serving pods.
        labels: Added to every object.
        annotations: Added to every object.
        env: Environment of the serving process. Secrets do not belong here.
        secrets: Names of Kubernetes Secrets in the namespace whose keys become environment variables of the serving
            process, such as the credentials of the model's storage.
        image: Container image of the server; None is the platform's own.
    """

    name: str
    namespace: str = "default"
    framework: str = "fastapi"
    port: int | None = None
    resources: Resources = field(default_factory=Resources)
    scaling: Scaling = field(default_factory=Scaling)
    service_account: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    image: str | None = None

    def __post_init__(self) -> None:
        check_service_name("Service.name", self.name, max_length=53)
        check_dns_label("Service.namespace", self.namespace)
        if self.framework not in FRAMEWORKS:
            raise InvalidValue("Service.framework", self.framework, f"use one of {', '.join(FRAMEWORKS)}")
        if self.port is not None:
            _check_range("Service.port", self.port, 1, 65535)
        if self.service_account is not None:
            check_subdomain("Service.service_account", self.service_account)
        _check_labels("Service.labels", self.labels, values=True)
        _check_labels("Service.annotations", self.annotations, values=False)
        for key, value in self.env.items():
            if not _ENV_NAME.fullmatch(key):
                raise InvalidValue("Service.env key", key, "use letters, digits and '_', not starting with a digit")
            if not isinstance(value, str):
                raise InvalidValue(f"Service.env[{key!r}]", value, "use a string")
        if isinstance(self.secrets, str):
            raise InvalidValue("Service.secrets", self.secrets, "use a list of names")
        for index, secret in enumerate(self.secrets):
            check_subdomain(f"Service.secrets[{index}]", secret)
        object.__setattr__(self, "secrets", tuple(self.secrets))
        if self.image is not None:
            check_image("Service.image", self.image)
        for name in ("labels", "annotations", "env"):
            _freeze(self, name)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One model behind one service: what an engine brings up and, if need be, takes back.

    Args:
        service: The endpoint.
        model: The model that it shall serve.
        traffic: The share of requests that this revision shall answer.
    """

    service: Service
    model: ModelSource
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def revision(self) -> str:
        """Name of what runs: equal content gives an equal name, and any change that restarts a server a new one.

        Traffic and the number of replicas change no process, so they are left out.
        """
        model = asdict(self.model)
        content: dict[str, Any] = {
            "model": model,
            "framework": self.service.framework,
            "env": dict(self.service.env),
            "resources": asdict(self.service.resources),
        }
        # added only where they are used, so that the names of what runs already stay
        if self.service.secrets:
            content["secrets"] = list(self.service.secrets)
        if self.service.image is not None:
            content["image"] = self.service.image
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.service.name}-{digest[:8]}"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a service answers.

    Args:
        name: Name of the service.
        url: Base URL that clients use.
        model: Name of the model in request paths.
        revision: The revision that answers at ``revision_url``.
        revision_url: Base URL of that very revision, if the platform has one.
        protocols: What is spoken there: ``v1`` (KServe V1), ``v2`` (Open Inference Protocol).
        headers: Sent with every request, such as the host header of an ingress.
    """

    name: str
    url: str
    model: str
    revision: str
    revision_url: str | None = None
    protocols: tuple[str, ...] = ("v1",)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_dns_label("Endpoint.name", self.name)
        for name in ("url", "revision_url"):
            value = getattr(self, name)
            if value is not None and urlsplit(value).scheme not in ("http", "https", "grpc", "grpcs"):
                raise InvalidValue(f"Endpoint.{name}", value, "use an http, https, grpc or grpcs URL")
        object.__setattr__(self, "protocols", tuple(self.protocols))
        _freeze(self, "headers")

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


def to_plain(value: Any) -> Any:
    """Turn a value of this module into dicts, lists and scalars that JSON can hold."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: to_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
