"""What a serving platform and a place to run are to the engine.

A :class:`Target` is pure: it turns a release into desired objects and reads observed objects, and never opens a
connection. A :class:`Runtime` moves objects and knows nothing of models. ``longshore.release`` joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

from longshore.spec import Endpoint, Health, Service, Traffic

__all__ = [
    "APPLIED_ANNOTATION",
    "HEARTBEAT_SECONDS",
    "MANAGED_BY",
    "PREVIOUS_ANNOTATION",
    "RELEASE_ANNOTATION",
    "REVISION_LABEL",
    "SERVICE_LABEL",
    "UNSEEN_ANNOTATION",
    "Deployable",
    "Manifest",
    "Need",
    "Ref",
    "Runtime",
    "Selection",
    "Target",
]

HEARTBEAT_SECONDS: Final = 1.0
"""How often a runtime says how things are while nothing changes."""

MANAGED_BY: Final[Mapping[str, str]] = {"app.kubernetes.io/managed-by": "longshore"}
"""The label of every object that longshore applies."""

RELEASE_ANNOTATION: Final = "longshore.dev/release"
"""On the first object of a release: the release itself."""

PREVIOUS_ANNOTATION: Final = "longshore.dev/previous-release"
"""On the same object: the release that this one has replaced."""

APPLIED_ANNOTATION: Final = "longshore.dev/applied"
"""Digest of an object as it was last applied: a field that is wanted no longer shows in it."""

SERVICE_LABEL: Final = "longshore.dev/service"
"""The service that an object belongs to."""

REVISION_LABEL: Final = "longshore.dev/revision"
"""The revision that a pod runs, or that an object is for alone."""

UNSEEN_ANNOTATION: Final = "longshore.dev/unseen"
"""On an observed object, and never in a cluster: its content was changed and nothing has been written into it since.

Whatever its status says is of before. Platforms that write ``observedGeneration`` say so themselves.
"""

Manifest = dict[str, Any]
"""A Kubernetes-style object: apiVersion, kind, metadata, spec and, when observed, status."""


@dataclass(frozen=True)
class Ref:
    """The identity of an object.

    Args:
        api_version: Group and version, such as ``apps/v1``.
        kind: Kind, such as ``Deployment``.
        name: Name of the object.
        namespace: Its namespace, None for what has none.
    """

    api_version: str
    kind: str
    name: str
    namespace: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Ref:
        """The identity of ``manifest``."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace"))

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True)
class Selection:
    """Objects that a platform makes for a release: they know first, and best, why something does not come up.

    Args:
        api_version: Group and version, such as ``v1``.
        kind: Kind, such as ``Pod``.
        namespace: Their namespace.
        labels: Labels that they have; empty selects all.
    """

    api_version: str
    kind: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"the {self.kind} objects of the namespace {self.namespace}"


@dataclass(frozen=True)
class Need:
    """What must be so in the cluster before a release is applied, beyond an object that must be there.

    Args:
        value: Value of the field that asks for it.
        look: Where to look.
        complaint: What is wrong with what was found there, None if nothing is.
    """

    value: object
    look: Ref | Selection
    complaint: Callable[[Sequence[Manifest]], str | None]


class Deployable(Protocol):
    """What the engine asks of what it brings up, which is a dataclass that JSON can hold.

    A :class:`~longshore.spec.Release` is one, an :class:`~longshore.spec.InferenceGraph` another.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def service(self) -> Service:
        """The endpoint, which outlives what is behind it."""
        ...

    @property
    def traffic(self) -> Traffic:
        """The share of the requests that it shall answer."""
        ...

    def next_to(self, previous: Self | None) -> Self:
        """The same with what answers the requests that it does not, of what serves now."""
        ...

    @property
    def revision(self) -> str:
        """Name of what runs: equal content gives an equal one."""
        ...


_R_contra = TypeVar("_R_contra", bound=Deployable, contravariant=True)


class Target(Protocol[_R_contra]):
    """A serving platform, as pure functions."""

    def previews(self, service: Service) -> bool:
        """Whether a revision can run at its own address before it gets traffic."""
        ...

    def render(self, release: _R_contra) -> list[Manifest]:
        """The objects that make ``release`` so. The same release gives the same objects."""
        ...

    def objects(self, service: Service) -> list[Ref]:
        """All objects that :meth:`render` may give, by name; the first one is always there and bears the release."""
        ...

    def children(self, release: _R_contra) -> Sequence[Selection]:
        """What :meth:`health` wants to see beside the objects of :meth:`render`."""
        ...

    def needs(self, release: _R_contra) -> Mapping[str, Ref | Need]:
        """What has to be there before the release is applied, by the field that names it."""
        ...

    def revisions(self, service: Service) -> Sequence[Selection]:
        """Where the objects are that each revision has of its own, with :data:`REVISION_LABEL`; none on most."""
        ...

    def health(self, release: _R_contra, observed: Sequence[Manifest]) -> Health:
        """Whether the release's very revision does what was asked. Never the verdict on an older one."""
        ...

    def endpoint(self, release: _R_contra, observed: Sequence[Manifest]) -> Endpoint:
        """Where the release answers, once it is healthy."""
        ...


class Runtime(Protocol):
    """A place where objects come true."""

    def apply(self, objects: Sequence[Manifest]) -> list[Ref]:
        """Make the objects desired; what already is as asked is left alone."""
        ...

    def get(self, ref: Ref) -> Manifest | None:
        """The object with its status, None if there is none."""
        ...

    def exists(self, ref: Ref) -> bool | None:
        """Whether there is such an object, None if this process may not know."""
        ...

    def look(self, what: Ref | Selection) -> Sequence[Manifest] | None:
        """What there is, whoever made it; None if this process may not know."""
        ...

    def observe(
        self, refs: Sequence[Ref], *, also: Sequence[Selection] = (), deadline: float
    ) -> Iterator[Sequence[Manifest]]:
        """Yield the objects, then those selected by ``also``: now, after each change and at every heartbeat.

        Ends at ``deadline`` (of ``time.monotonic``).
        """
        ...

    def find(self, selection: Selection) -> Sequence[Manifest]:
        """The objects of a selection that longshore has applied."""
        ...

    def delete(self, refs: Sequence[Ref]) -> None:
        """Remove the objects and all they own; what is gone already is no error."""
        ...

    def lock(self, ref: Ref) -> AbstractContextManager[None]:
        """Keep other deployments of the same object out."""
        ...

    def reach(self, endpoint: Endpoint) -> AbstractContextManager[Endpoint]:
        """The endpoint as this process can call it."""
        ...
