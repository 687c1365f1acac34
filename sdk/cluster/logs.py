"""The last words of containers that crashed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any, Final

from longshore.cluster.session import Resource, Session
from longshore.errors import ClusterError
from longshore.targets.base import Manifest

__all__ = ["LastWords"]

_PODS: Final = Resource("v1", "Pod", "pods", namespaced=True)
_LINES: Final = 10
_BYTES: Final = 4096
_STATUSES: Final = ("initContainerStatuses", "containerStatuses")


class LastWords:
    """Puts the end of a crashed container's log where Kubernetes itself puts it on request: its termination message.

    A pod template with ``terminationMessagePolicy: FallbackToLogsOnError`` has it there already. For all others the
    log is read once for each crash, so that whoever reads an observed pod finds the reason in one place.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[str, str, int], str] = {}

    def of(self, manifest: Manifest) -> Manifest:
        """The object; a pod that crashed without a message as a copy with one."""
        if manifest["kind"] != "Pod":
            return manifest
        status = manifest.get("status") or {}
        if not any(_mute(container) for name in _STATUSES for container in status.get(name) or ()):
            return manifest
        told = copy.deepcopy(manifest)
        for name in _STATUSES:
            for container in told["status"].get(name) or ():
                crash = _mute(container)
                if crash is not None:
                    crash["message"] = self._read(manifest, container)
        return told

    def _read(self, pod: Manifest, container: Mapping[str, Any]) -> str:
        crash = (pod["metadata"]["uid"], container["name"], container.get("restartCount", 0))
        if crash not in self._known:
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            query = {"container": container["name"], "tailLines": _LINES, "limitBytes": _BYTES}
            if "terminated" not in (container.get("state") or {}):
                query["previous"] = "true"
            self._known[crash] = ""
            # a reason without the log is better than none: the log may be gone, or forbidden
            with contextlib.suppress(ClusterError):
                path = f"{_PODS.path(namespace, name)}/log"
                text = self._session.raw("GET", path, f"the log of Pod {namespace}/{name}", query=query, patience=0)
                self._known[crash] = text.decode(errors="replace").strip()
        return self._known[crash]


def _mute(container: Mapping[str, Any]) -> dict[str, Any] | None:
    """The termination of a container that crashed without a message, None if there is none."""
    for state in ("state", "lastState"):
        terminated: dict[str, Any] | None = (container.get(state) or {}).get("terminated")
        if terminated and terminated.get("exitCode") and not terminated.get("message"):
            return terminated
    return None
