"""The platform ``local``: server processes on the machine where the engine runs, one for each revision.

With a router, an Nginx in front of them shares the requests out, and a revision can have several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, Release, Router, Service
from longshore.targets.base import Manifest, Ref, Selection
from longshore.targets.routes import shares

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
        """One object: the revision that shall run, and whether it serves, or how requests are shared out.

        Raises:
            InvalidValue: If the revision shall answer a part of the requests, get copies of them or have replicas, and
                nothing is there that shares them out; or if replicas shall be added as load rises.
        """
        service, model = release.service, release.model
        if service.router is None:
            _check_whole(release)
        most = service.scaling.max_replicas
        if most is not None and most > _replicas(service):
            raise InvalidValue(
                "Scaling.max_replicas", most, "nothing adds processes on this machine as load rises: leave it out"
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
                    "replicas": _replicas(service),
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
                    "router": _router(release),
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
        found = self._revision(release.revision, status)
        if found is None:
            return Health.progressing("its process has not been started yet")
        if found["state"] in ("failed", "stopped"):
            return Health.failed(found["reason"] or f"its process has {found['state']}")
        if found["state"] != "ready":
            return Health.progressing("the server is loading the model")
        router = _router(release)
        if router is not None:
            return self._routed(router, status)
        if release.traffic.percent and status.get("active") != release.revision:
            return Health.progressing("the server is ready and does not have the service's port yet")
        return Health.ready()

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The service's address, and the revision's own; without traffic only the latter."""
        status = self._status(release, observed)
        found = self._revision(release.revision, status) or {}
        own = found.get("url")
        router = _router(release)
        served = release.traffic.percent if router is None else router["shares"]
        tls = None if release.service.router is None else release.service.router.tls
        return Endpoint(
            name=release.service.name,
            url=(status.get("url") if served else None) or own or "",
            model=release.model.name,
            revision=release.revision,
            revision_url=own,
            protocols=("v1", "v2"),
            headers={} if tls is None or tls.host is None else {"Host": tls.host},
            ca=None if tls is None else tls.ca,
        )

    @staticmethod
    def _status(release: Release, observed: Sequence[Manifest]) -> dict[str, Any]:
        for manifest in observed:
            if manifest["metadata"]["name"] == release.service.name:
                status: dict[str, Any] = manifest.get("status", {})
                return status
        return {}

    @staticmethod
    def _revision(name: str, status: dict[str, Any]) -> dict[str, Any] | None:
        return next((r for r in status.get("revisions", []) if r["name"] == name), None)

    def _routed(self, router: dict[str, Any], status: dict[str, Any]) -> Health:
        """The verdict on what stands in front of a revision that is ready, and on the others beside it."""
        for name in router["shares"]:
            beside = self._revision(name, status)
            if beside is None or beside["state"] in ("failed", "stopped"):
                why = (beside or {}).get("reason") or "there is no process of it"
                return Health.failed(f"revision {name}, which shall answer a part of the requests: {why}")
            if beside["state"] != "ready":
                return Health.progressing(f"revision {name}, which shall answer a part of the requests, is starting")
        if router["shares"] and status.get("routed") != router:
            return Health.progressing("the server is ready and Nginx does not share requests out as asked yet")
        return Health.ready()


def _replicas(service: Service) -> int:
    # it does not scale to zero
    return max(1, service.scaling.min_replicas)


def _check_whole(release: Release) -> None:
    if _replicas(release.service) > 1:
        raise InvalidValue(
            "Scaling.min_replicas",
            release.service.scaling.min_replicas,
            "without a router one process answers here: give the service a router, Router(kind='nginx')",
        )
    if release.traffic.mirror_percent:
        raise InvalidValue(
            "Traffic.mirror_percent",
            release.traffic.mirror_percent,
            "nothing copies requests here: give the service a router",
        )
    if release.traffic.percent not in (0, 100):
        raise InvalidValue(
            "Traffic.percent",
            release.traffic.percent,
            "without a router a revision answers all requests or none: use 0 or 100, or give the service a router",
        )


def _router(release: Release) -> dict[str, Any] | None:
    """How the service's requests are shared out; None if it has no router."""
    router, traffic = release.service.router, release.traffic
    if router is None:
        return None
    if router.kind != "nginx":
        raise InvalidValue("Router.kind", router.kind, "on this machine it is nginx: the others are a cluster's")
    if router.image is not None:
        raise InvalidValue("Router.image", router.image, "on this machine Nginx is a process, not an image")
    return {
        # a first revision that is tried out has nothing beside it, and nobody asks for it
        "shares": shares(release) if traffic.percent or traffic.others else {},
        "mirrorPercent": traffic.mirror_percent,
        "client": router.client,
        "sticky": router.sticky,
        "requestsPerSecond": router.requests_per_second,
        "timeoutSeconds": router.timeout_seconds,
        "accessLog": router.access_log,
        "tls": _tls(router),
    }


def _tls(router: Router) -> dict[str, Any] | None:
    tls = router.tls
    if tls is None:
        return None
    if tls.secret is not None:
        raise InvalidValue(
            "Tls.secret", tls.secret, "there are no Secrets on this machine: give cert_file and key_file"
        )
    return {"certFile": tls.cert_file, "keyFile": tls.key_file, "host": tls.host}
