"""What a deploy does to a model's versions: decided from what is there, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longshore.errors import InvalidValue
from longshore.torchserve.versions import Version, order

__all__ = ["Plan", "plan_deploy"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall be done.

    Args:
        model: Name of the model.
        version: The version that is deployed.
        register: Whether it has to be registered; else it is there already.
        scale: The workers that it has to be given once it is there; None leaves those that its archive asks for.
        before: The version that answers those who name none now; None if there is none.
        move: Whether the default moves.
        retire: The versions that are unregistered at last.
    """

    model: str
    version: str
    register: bool
    scale: int | None
    before: str | None
    move: bool
    retire: tuple[str, ...] = ()

    def steps(self) -> Iterator[str]:
        """What is done, a sentence each."""
        if self.register:
            yield f"register version {self.version} of {self.model}"
        if self.scale is not None:
            yield f"give it {self.scale} workers"
        yield f"wait until its workers are ready, and ask /predictions/{self.model}/{self.version} for its example rows"
        if self.move:
            instead = f" in place of {self.before}" if self.before is not None else ""
            yield f"make it the default{instead}, and ask /predictions/{self.model}"
        for version in self.retire:
            yield f"unregister version {version} once it has answered what it was asked"


def plan_deploy(
    model: str,
    version: str,
    found: Sequence[Version],
    *,
    workers: int | None = None,
    make_default: bool = True,
    keep_versions: int | None = None,
) -> Plan:
    """Decide what a deploy does.

    Args:
        model: Name of the model.
        version: The version to deploy.
        found: The versions that are there.
        workers: Workers that it shall have at least; None leaves it to its archive.
        make_default: Whether it shall answer those who name no version.
        keep_versions: How many of the versions before it stay, for a rollback: the one that it replaces, then the
            highest. None keeps all. Later ones are never touched.
    """
    if keep_versions is not None and keep_versions < 0:
        raise InvalidValue("keep_versions", keep_versions, "use 0 or more, or leave it out to keep all")
    if workers is not None and workers < 1:
        raise InvalidValue("workers", workers, "use at least 1")
    there = next((one for one in found if one.version == version), None)
    default = next((one.version for one in found if one.default), None)
    scale = workers
    if there is not None:
        # one whose workers were taken away needs some again; taking some away would drop requests
        scale = (workers or 1) if (workers or 1) > there.min_workers else None
    earlier = [one.version for one in found if one.version != version and order(one.version) < order(version)]
    if default is not None and default != version and default not in earlier:
        earlier.append(default)
    ranked = sorted(earlier, key=lambda one: (one == default, order(one)), reverse=True)
    retire = ranked[keep_versions:] if make_default and keep_versions is not None else []
    return Plan(
        model=model,
        version=version,
        register=there is None,
        scale=scale,
        before=default if default != version else None,
        # the first version of a model is its default whatever is asked for
        move=make_default and default != version,
        retire=tuple(retire),
    )
