"""What the registry knows of a version, and how it is written in MLflow's tags. Pure: no client, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Literal, get_args

from longshore.errors import InvalidValue, RegistryError
from longshore.spec import ModelSource
from longshore.spec.checks import check_service_name

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "URI_TAG",
    "DeploymentState",
    "RegisteredVersion",
    "State",
    "deployment_tags",
    "registration_tags",
    "superseded_state",
    "utc_now",
    "version_from",
]

State = Literal["serving", "replaced", "rolled-back", "failed"]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
URI_TAG: Final = "longshore.uri"
MAX_REASON: Final = 500

_STATES: Final[tuple[str, ...]] = get_args(State)
_DIGEST_TAG: Final = "longshore.digest"
_FORMAT_TAG: Final = "longshore.format"
_METRIC_PREFIX: Final = "longshore.metric."
_DEPLOYMENT_PREFIX: Final = "longshore.deployment."


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class DeploymentState:
    """What became of a version behind one service.

    Args:
        state: ``serving``, ``replaced`` (by a later version), ``rolled-back`` or ``failed``.
        revision: The revision that this is about.
        endpoint: URL at which it answers or answered; empty if it never did.
        reason: Why: of a failure, or of how an experiment ended; cut to 500 characters.
        time: When this became so, UTC, ISO 8601.
    """

    state: State
    revision: str
    endpoint: str = ""
    reason: str = ""
    time: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        if self.state not in _STATES:
            raise InvalidValue("DeploymentState.state", self.state, f"use one of {', '.join(_STATES)}")
        if len(self.reason) > MAX_REASON:
            object.__setattr__(self, "reason", self.reason[: MAX_REASON - 1] + "…")


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version of a registered model.

    Args:
        name: Name of the model.
        version: Its number, as digits.
        uri: Directory of its files: the place it was deployed from, before that the place it was registered from.
        digest: Digest over the directory; None if it was not registered by longshore.
        format: What the files are, such as ``sklearn``; None if it was not registered by longshore.
        aliases: Aliases that point at it, sorted.
        metrics: Scores that were recorded with it.
        deployments: What became of it, by name of the service.
    """

    name: str
    version: str
    uri: str
    digest: str | None = None
    format: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "aliases", tuple(sorted(self.aliases)))
        for name in ("metrics", "deployments"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def source(self) -> ModelSource:
        """The version as something that can be deployed.

        Raises:
            RegistryError: If it does not say what its files are, because something else than longshore registered it.
        """
        if self.format is None:
            raise RegistryError(
                f"version {self.version} of model {self.name!r} has no tag {_FORMAT_TAG}: it was not registered by "
                f"longshore. Set the tag to what its files are, such as 'sklearn', or register it again with longshore"
            )
        return ModelSource(uri=self.uri, format=self.format, name=self.name, version=self.version, digest=self.digest)


def registration_tags(
    model: ModelSource, *, metrics: Mapping[str, float], data_digest: str, run: str | None
) -> dict[str, str]:
    """The tags of a new version; what is not known gets no tag."""
    known = {
        _DIGEST_TAG: model.digest,
        "longshore.data_digest": data_digest,
        _FORMAT_TAG: model.format,
        "longshore.run": run,
    }
    scores = {f"{_METRIC_PREFIX}{name}": repr(float(value)) for name, value in metrics.items()}
    return {key: value for key, value in known.items() if value} | scores


def deployment_tags(service: str, state: DeploymentState) -> dict[str, str]:
    """The tags that say what became of a version behind ``service``.

    All are written each time, so that nothing of an earlier state is left standing.
    """
    check_service_name("service", service)
    prefix = f"{_DEPLOYMENT_PREFIX}{service}."
    return {f"{prefix}{name}": getattr(state, name) for name in DeploymentState.__dataclass_fields__}


def version_from(
    *, name: str, version: str, source: str, tags: Mapping[str, str], aliases: Sequence[str] = ()
) -> RegisteredVersion:
    """Read a version from what MLflow holds; tags that longshore did not write or cannot read are passed over."""
    return RegisteredVersion(
        name=name,
        version=str(version),
        uri=tags.get(URI_TAG) or source,
        digest=tags.get(_DIGEST_TAG),
        format=tags.get(_FORMAT_TAG),
        aliases=tuple(aliases),
        metrics=_metrics(tags),
        deployments=_deployments(tags),
    )


def superseded_state(old: RegisteredVersion, new: ModelSource) -> State:
    """What becomes of a version that served until ``new`` did: going back to a lower number is a rollback."""
    if new.version is None or old.name != new.name:
        return "replaced"
    return "rolled-back" if int(old.version) > int(new.version) else "replaced"


def _metrics(tags: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for key, text in tags.items():
        if key.startswith(_METRIC_PREFIX):
            try:
                found[key.removeprefix(_METRIC_PREFIX)] = float(text)
            except ValueError:
                continue
    return found


def _deployments(tags: Mapping[str, str]) -> dict[str, DeploymentState]:
    fields: dict[str, dict[str, str]] = {}
    for key, text in tags.items():
        if key.startswith(_DEPLOYMENT_PREFIX):
            service, _, name = key.removeprefix(_DEPLOYMENT_PREFIX).rpartition(".")
            if name in DeploymentState.__dataclass_fields__:
                fields.setdefault(service, {})[name] = text
    found = {}
    for service, values in sorted(fields.items()):
        try:
            found[service] = DeploymentState(**{"revision": "", "time": "", **values})  # type: ignore[arg-type]
        except (TypeError, InvalidValue):
            continue
    return found
