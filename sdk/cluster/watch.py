"""Up-to-date copies of objects: one list, then one watch for all objects of a kind.

The watch goes on from the version of the list, and from its own last one after whatever breaks it off; bookmarks keep
that version young, and where the server has forgotten it (410) the list is made anew. Nothing is asked twice in
between, and no event is missed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from longshore.cluster.session import Overloaded, Resource, Session, Stream, pauses
from longshore.errors import ClusterError
from longshore.targets.base import Manifest

__all__ = ["Changes", "Query", "Watch", "list_all"]

_PAGE: Final = 500
_RELIST_SECONDS: Final = 0.1
_SERVER_SECONDS: Final = (240, 300)
_SILENCE_SECONDS: Final = 100.0
"""Bookmarks come about once a minute: a watch that is silent for longer is dead."""


@dataclass(frozen=True)
class Query:
    """Objects of a kind.

    Args:
        resource: The kind.
        namespace: Their namespace, None for all.
        labels: Label selector.
        fields: Field selector.
    """

    resource: Resource
    namespace: str | None
    labels: str = ""
    fields: str = ""

    @property
    def path(self) -> str:
        """Path of the list."""
        return self.resource.path(self.namespace)

    @property
    def parameters(self) -> dict[str, Any]:
        """The selectors as query parameters."""
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in chosen.items() if value}

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace is not None else ""
        return f"the list of {self.resource.plural}{where}"


class Changes:
    """Where watches tell that something is new, and one thread waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self._new = False

    def tell(self) -> None:
        """Something is new; call it with the lock held."""
        self._new = True
        self.lock.notify_all()

    def wait(self, seconds: float) -> None:
        """Return when something is new, or after ``seconds``."""
        with self.lock:
            self.lock.wait_for(lambda: self._new, max(0.0, seconds))
            self._new = False


def list_all(
    session: Session, query: Query, wanted: Callable[[Manifest], bool]
) -> tuple[dict[tuple[str, str], Manifest], str]:
    """The objects of a query that are wanted, by namespace and name, and the version of the list.

    Raises:
        ClusterError: If the cluster refuses.
    """
    for pause in pauses():
        try:
            return _list_pages(session, query, wanted)
        except ClusterError as error:
            # it forgot the list between two pages
            if error.reason != "Expired":
                raise
        time.sleep(pause)
    raise AssertionError("pauses never end")


def _list_pages(
    session: Session, query: Query, wanted: Callable[[Manifest], bool]
) -> tuple[dict[tuple[str, str], Manifest], str]:
    found = {}
    more = ""
    while True:
        parameters = {**query.parameters, "limit": _PAGE, **({"continue": more} if more else {})}
        answer = session.request("GET", query.path, str(query), query=parameters)
        for item in answer["items"]:
            manifest = _named(item, query.resource)
            if wanted(manifest):
                found[_key(manifest)] = manifest
        more = answer["metadata"].get("continue", "")
        if not more:
            return found, answer["metadata"]["resourceVersion"]


def _named(item: dict[str, Any], resource: Resource) -> Manifest:
    """The item of a list with what lists of built-in kinds leave out."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}


class Watch:
    """A thread that keeps copies of the objects of a query.

    Args:
        session: The cluster.
        query: What to watch.
        wanted: Which of them to keep; None keeps all.
        changes: Told of every change.
    """

    def __init__(
        self, session: Session, query: Query, changes: Changes, wanted: Callable[[Manifest], bool] | None = None
    ) -> None:
        self._session = session
        self._query = query
        self._changes = changes
        self._wanted = wanted or (lambda _: True)
        self._stopped = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch of {query}", daemon=True)
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.listed = False
        self.failure: ClusterError | None = None

    def start(self) -> None:
        """Begin with the list."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for the thread."""
        self._stopped.set()
        if self._stream is not None:
            self._stream.end()

    def join(self, seconds: float = 5) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._follow(self._list())
                self._stopped.wait(_RELIST_SECONDS)
        except Exception as error:  # noqa: BLE001 - told in the thread that waits for this one
            with self._changes.lock:
                told = error if isinstance(error, ClusterError) else None
                self.failure = told or ClusterError(f"{self._query} could not be watched: {error!r}", "Internal")
                self._changes.tell()

    def _list(self) -> str:
        """Replace all copies by what there is now; returns the version that the watch goes on from."""
        found, version = list_all(self._session, self._query, self._wanted)
        with self._changes.lock:
            self.objects, self.listed = found, True
            self._changes.tell()
        return version

    def _follow(self, version: str) -> None:
        """Watch on from a version until the server has forgotten it, or for good."""
        broken = pauses()
        while not self._stopped.is_set():
            began = time.monotonic()
            wait: float | None = None
            try:
                for event in self._events(version):
                    if event["type"] == "ERROR":
                        if event["object"].get("code") == 410:
                            return
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._take(event["type"], event["object"])
            except Overloaded as error:
                wait = error.retry_after
            except ClusterError as error:
                if error.reason in ("Expired", "Gone"):
                    return
                if error.reason != "Unreachable":
                    raise
            if time.monotonic() - began > 1:
                # it did work: what comes now is a new trouble
                broken = pauses()
            self._stopped.wait(wait if wait is not None else next(broken))

    def _events(self, version: str) -> Iterator[dict[str, Any]]:
        query = {
            **self._query.parameters,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": random.randint(*_SERVER_SECONDS),  # noqa: S311 - nothing to guess here
        }
        self._stream = self._session.stream(self._query.path, str(self._query), query, _SILENCE_SECONDS)
        if self._stopped.is_set():
            self._stream.end()
        yield from self._stream

    def _take(self, kind: str, manifest: Manifest) -> None:
        if not self._wanted(manifest):
            return
        with self._changes.lock:
            if kind == "DELETED":
                self.objects.pop(_key(manifest), None)
            else:
                self.objects[_key(manifest)] = manifest
            self._changes.tell()


def _key(manifest: Mapping[str, Any]) -> tuple[str, str]:
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
