"""The platform ``local``: one server process per revision, on the machine where the engine runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, Release, Service
from longshore.targets.base import Manifest, Ref, Selection

__all__ = ["LocalTarget"]

_API_VERSION: Final = "local.longshore.dev/v1alpha1"
_KIND: Final = "ModelServer"
_DRAIN_SECONDS: Final = 10


class LocalTarget:
    """Renders a release as one ``ModelServer`` object; see :class:`longshore.targets.base.Target`."""

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """Yes: a process of its own."""
        return True

    def render(self, release: Release) -> list[Manifest]:
        """One object: the revision that shall run, and whether it serves.

        Raises:
            InvalidValue: If the revision shall answer a part of the requests, or get copies of them.
        """
        service, model = release.service, release.model
        if release.traffic.mirror_percent:
            raise InvalidValue(
                "Traffic.mirror_percent", release.traffic.mirror_percent, "this machine copies no requests"
            )
        if release.traffic.percent not in (0, 100):
            raise InvalidValue(
                "Traffic.percent",
                release.traffic.percent,
                "on one machine a revision answers all requests or none: use 0 or 100",
            )
        return [
            {
                "apiVersion": _API_VERSION,
                "kind": _KIND,
                "metadata": {
                    "name": service.name,
                    "labels": dict(service.labels),
                    "annotations": dict(service.annotations),
                },
                "spec": {
                    "revision": release.revision,
                    "traffic": release.traffic.percent,
                    "port": service.port,
                    "framework": service.framework,
                    "model": {
                        "uri": model.uri,
                        "format": model.format,
                        "name": model.name,
                        "version": model.version,
                        "digest": model.digest,
                    },
                    "env": dict(service.env),
                    "drainSeconds": _DRAIN_SECONDS,
                },
            }
        ]

    def objects(self, service: Service) -> list[Ref]:
        """One object: a service on this machine has no namespace."""
        return [Ref(_API_VERSION, _KIND, service.name)]

    def children(self, release: Release) -> Sequence[Selection]:  # noqa: ARG002
        """None: the object's status says it all."""
        return ()

    def needs(self, release: Release) -> Mapping[str, Ref]:  # noqa: ARG002
        """Nothing: there are no Secrets on this machine."""
        return {}

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: the runtime ends them."""
        return ()

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the release's own revision."""
        status = self._status(release, observed)
        found = self._revision(release, status)
        if found is None:
            return Health.progressing("its process has not been started yet")
        if found["state"] in ("failed", "stopped"):
            return Health.failed(found["reason"] or f"its process has {found['state']}")
        if found["state"] != "ready":
            return Health.progressing("the server is loading the model")
        if release.traffic.percent and status.get("active") != release.revision:
            return Health.progressing("the server is ready and does not have the service's port yet")
        return Health.ready()

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The service's address, and the revision's own; without traffic only the latter."""
        status = self._status(release, observed)
        found = self._revision(release, status) or {}
        own = found.get("url")
        return Endpoint(
            name=release.service.name,
            url=(status.get("url") if release.traffic.percent else None) or own or "",
            model=release.model.name,
            revision=release.revision,
            revision_url=own,
            protocols=("v1", "v2"),
        )

    @staticmethod
    def _status(release: Release, observed: Sequence[Manifest]) -> dict[str, Any]:
        for manifest in observed:
            if manifest["metadata"]["name"] == release.service.name:
                status: dict[str, Any] = manifest.get("status", {})
                return status
        return {}

    @staticmethod
    def _revision(release: Release, status: dict[str, Any]) -> dict[str, Any] | None:
        return next((r for r in status.get("revisions", []) if r["name"] == release.revision), None)
