"""The parts of a release: model, compute, replicas, traffic, and where pods may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from longshore.errors import InvalidValue
from longshore.spec.checks import (
    check_choice,
    check_digest,
    check_dns_label,
    check_labels,
    check_quantity,
    check_range,
    check_uri,
    freeze,
)

__all__ = ["ModelSource", "Resources", "Scaling", "Toleration", "Traffic"]

ScalingMetric = Literal["cpu", "memory", "concurrency", "rps"]
_SCALING_METRICS: Final = ("cpu", "memory", "concurrency", "rps")


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
        if self.digest is not None:
            check_digest("ModelSource.digest", self.digest)


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
        check_range("Resources.gpu", self.gpu, 0)


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
        check_range("Scaling.min_replicas", self.min_replicas, 0)
        if self.max_replicas is not None:
            check_range("Scaling.max_replicas", self.max_replicas, max(1, self.min_replicas))
        check_choice("Scaling.metric", self.metric, _SCALING_METRICS)
        check_range("Scaling.target", self.target, 1, 100 if self.metric in ("cpu", "memory") else None)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The share of requests that a revision answers.

    Args:
        percent: Whole percent from 0 to 100. At 0 the revision runs and can be asked at its own address only.
        mirror_percent: Share of the requests that such a revision gets a copy of; its answers are dropped.
        base: The revision that answers the rest; an engine sets it to what serves.
        rest: Percent that each of several others keeps, by revision; with ``percent`` it makes 100. Empty: ``base``
            answers all of the rest.
    """

    percent: int = 100
    mirror_percent: int = 0
    base: str | None = None
    rest: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("Traffic.percent", self.percent, 0, 100)
        check_range("Traffic.mirror_percent", self.mirror_percent, 0, 100)
        if self.mirror_percent and self.percent:
            raise InvalidValue(
                "Traffic.mirror_percent", self.mirror_percent, "what gets copies answers nobody: use percent=0"
            )
        if self.base is not None:
            check_dns_label("Traffic.base", self.base)
            if self.percent == 100:
                raise InvalidValue("Traffic.base", self.base, "at 100 percent there is no rest")
        if self.rest:
            self._check_rest()
        freeze(self, "rest")

    def _check_rest(self) -> None:
        for revision, percent in self.rest.items():
            check_dns_label("Traffic.rest key", revision)
            check_range(f"Traffic.rest[{revision!r}]", percent, 0, 100)
        total = self.percent + sum(self.rest.values())
        if total != 100:
            raise InvalidValue(
                "Traffic.rest", dict(self.rest), f"with percent={self.percent} this adds up to {total}, not to 100"
            )
        if self.percent == 100:
            raise InvalidValue("Traffic.rest", dict(self.rest), "at 100 percent there is no rest")

    @property
    def others(self) -> dict[str, int]:
        """Percent that other revisions answer, by revision; empty where none is known."""
        if self.rest:
            return dict(self.rest)
        return {} if self.base is None else {self.base: 100 - self.percent}


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint that pods may run on in spite of; see Kubernetes' own ``tolerations``.

    Args:
        key: Key of the taint; None tolerates every taint.
        value: Its value; None tolerates every value.
        effect: ``NoSchedule``, ``PreferNoSchedule`` or ``NoExecute``; None means all.
        seconds: How long a pod stays on a node that gets a ``NoExecute`` taint; None means for ever.
    """

    key: str | None = None
    value: str | None = None
    effect: str | None = None
    seconds: int | None = None

    def __post_init__(self) -> None:
        if self.key is not None:
            check_labels("Toleration", {self.key: self.value or ""})
        elif self.value is not None:
            raise InvalidValue("Toleration.value", self.value, "a value needs a key")
        if self.effect is not None:
            check_choice("Toleration.effect", self.effect, ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if self.seconds is not None:
            check_range("Toleration.seconds", self.seconds, 0)
            if self.effect != "NoExecute":
                raise InvalidValue("Toleration.seconds", self.seconds, "this goes with the effect NoExecute only")
