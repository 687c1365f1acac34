"""How a service's requests are shared out to its revisions: the service's address, and what stands behind it.

Each revision has a lane: a Service of Kubernetes that leads to nothing but its pods. The service's own address is the
Nginx in front of the lanes; where a gateway shares out, it leads to the lane with the largest share, so that clients
which go past the gateway are answered, too.

Sources: gateway-api.sigs.k8s.io/reference/spec (HTTPRoute), istio.io/latest/docs/reference/config/networking/
virtual-service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, Release, Router, Service
from longshore.targets import nginx
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Ref, Selection

__all__ = [
    "Lane",
    "lane_service",
    "lane_url",
    "route_children",
    "route_endpoint",
    "route_health",
    "route_manifests",
    "route_needs",
    "route_objects",
    "shares",
]

_PORT: Final = 80
_TLS_PORT: Final = 443
_HTTP_ROUTE: Final = ("gateway.networking.k8s.io/v1", "HTTPRoute")
_VIRTUAL_SERVICE: Final = ("networking.istio.io/v1", "VirtualService")


@dataclass(frozen=True)
class Lane:
    """The pods of one revision.

    Args:
        selector: Labels that they have and no others.
        port: Their port, by number or by name.
    """

    selector: Mapping[str, str]
    port: int | str


def shares(release: Release) -> dict[str, int]:
    """Percent of the requests by revision; a revision with nothing beside it answers all."""
    others = release.traffic.others
    if not others:
        return {release.revision: 100}
    found = {release.revision: release.traffic.percent, **others}
    return {revision: percent for revision, percent in found.items() if percent}


def lane_service(release: Release, lane: Lane) -> Manifest:
    """The Service of a revision."""
    labels = {REVISION_LABEL: release.revision}
    return _service(release.service, _lane(release.revision), lane.selector, lane.port, labels=labels)


def lane_url(release: Release) -> str:
    """Base URL of a revision, in the cluster."""
    return f"http://{_lane(release.revision)}.{release.service.namespace}.svc.cluster.local"


def route_manifests(release: Release, lane: Lane) -> list[Manifest]:
    """The service's address first, then what shares its requests out.

    Args:
        release: The release.
        lane: Its pods.
    """
    service, router = release.service, _router(release.service)
    if router.kind == "nginx":
        address = _service(
            service,
            service.name,
            {nginx.ROUTE_LABEL: service.name},
            nginx.NGINX_PORT,
            port=service.port,
            secure=router.tls is not None,
        )
        return [address, nginx.nginx_deployment(service, router, _configuration(release))]
    largest = max(shares(release).items(), key=lambda item: item[1])[0]
    # the lanes of one service differ in the revision alone
    selector = {key: largest if value == release.revision else value for key, value in lane.selector.items()}
    address = _service(service, service.name, selector, lane.port, port=service.port)
    return [address, _http_route(release) if router.kind == "gateway-api" else _virtual_service(release)]


def route_objects(service: Service) -> list[Ref]:
    """The objects of :func:`route_manifests`."""
    name, namespace = service.name, service.namespace
    behind = {
        "nginx": nginx.nginx_ref(service),
        "gateway-api": Ref(*_HTTP_ROUTE, name, namespace),
        "istio": Ref(*_VIRTUAL_SERVICE, name, namespace),
    }
    return [Ref("v1", "Service", name, namespace), behind[_router(service).kind]]


def route_children(service: Service) -> Sequence[Selection]:
    """What :func:`route_health` wants to see beside these."""
    return (nginx.nginx_pods(service),) if _router(service).kind == "nginx" else ()


def route_health(release: Release, observed: Sequence[Manifest]) -> Health:
    """Whether the service's requests are shared out as the release has it."""
    router = _router(release.service)
    if router.kind == "nginx":
        return nginx.nginx_health(release.service, router, _configuration(release), observed)
    kind = route_objects(release.service)[1].kind
    route = next((m for m in observed if m["kind"] == kind), None)
    if route is None:
        return Health.progressing(f"the {kind} is not there yet")
    return _accepted(route, router) if router.kind == "gateway-api" else _valid(route)


def route_endpoint(release: Release, lane_endpoint: Endpoint) -> Endpoint:
    """The service's address, and that of the release's own revision."""
    service, router, tls = release.service, _router(release.service), _router(release.service).tls
    name = f"{service.name}.{service.namespace}.svc.cluster.local"
    if tls is not None:
        # it is whose certificate is asked for, too, wherever the address leads
        headers = {"Host": tls.host or name}
    else:
        headers = {"Host": router.hosts[0]} if router.url is not None and router.hosts else {}
    scheme, usual = ("http", _PORT) if tls is None else ("https", _TLS_PORT)
    port = "" if service.port in (None, usual) else f":{service.port}"
    return Endpoint(
        name=service.name,
        url=router.url or f"{scheme}://{name}{port}",
        model=lane_endpoint.model,
        revision=release.revision,
        revision_url=lane_url(release),
        protocols=lane_endpoint.protocols,
        headers=headers,
        takes=lane_endpoint.takes,
        ca=None if tls is None else tls.ca,
    )


def _router(service: Service) -> Router:
    if service.router is None:
        raise InvalidValue("Service.router", None, "a service with routes has a router")
    return service.router


def route_needs(service: Service) -> dict[str, Ref]:
    """The Secret that the objects of :func:`route_manifests` name, by the field that says so."""
    tls = _router(service).tls
    if tls is None or tls.secret is None:
        return {}
    return {"Router.tls.secret": Ref("v1", "Secret", tls.secret, service.namespace)}


def _lane(revision: str) -> str:
    return f"{revision}-lane"


def _service(
    service: Service,
    name: str,
    selector: Mapping[str, str],
    target: int | str,
    *,
    port: int | None = None,
    secure: bool = False,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    ports = {"https": port or _TLS_PORT, "http": _PORT} if secure else {"http": port or _PORT}
    if secure and port == _PORT:
        del ports["http"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": service.namespace,
            "labels": {**service.labels, SERVICE_LABEL: service.name, **(labels or {})},
            "annotations": dict(service.annotations),
        },
        "spec": {
            "type": "ClusterIP",
            "selector": dict(selector),
            "ports": [
                {"name": name, "port": number, "targetPort": target, "protocol": "TCP"}
                for name, number in ports.items()
            ],
        },
    }


def _configuration(release: Release) -> str:
    mirrored = release.traffic.mirror_percent
    revisions = {*shares(release), *([release.revision] if mirrored else ())}
    return nginx.nginx_configuration(
        shares(release),
        # without the cluster's domain, which every pod's resolver appends
        {revision: [f"{_lane(revision)}.{release.service.namespace}.svc"] for revision in revisions},
        (release.revision, mirrored) if mirrored else None,
        router=_router(release.service),
        salt=release.service.name,
        port=release.service.port,
    )


def _metadata(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "labels": {**service.labels, SERVICE_LABEL: service.name},
        "annotations": dict(service.annotations),
    }


def _gateway(service: Service) -> tuple[str, str]:
    """Namespace and name of the Gateway."""
    namespace, _, name = (_router(service).gateway or "").rpartition("/")
    return namespace or service.namespace, name


def _http_route(release: Release) -> Manifest:
    service, router = release.service, _router(release.service)
    namespace, name = _gateway(service)

    def backend(revision: str) -> dict[str, Any]:
        return {"group": "", "kind": "Service", "name": _lane(revision), "port": _PORT}

    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{**backend(revision), "weight": percent} for revision, percent in shares(release).items()],
    }
    if percent := release.traffic.mirror_percent:
        mirror: dict[str, Any] = {"backendRef": backend(release.revision)}
        if percent < 100:
            # Gateway API 1.3 and later know a share
            mirror["percent"] = percent
        rule["filters"] = [{"type": "RequestMirror", "requestMirror": mirror}]
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": name}
    spec: dict[str, Any] = {"parentRefs": [parent], "rules": [rule]}
    if router.hosts:
        spec["hostnames"] = list(router.hosts)
    api_version, kind = _HTTP_ROUTE
    return {"apiVersion": api_version, "kind": kind, "metadata": _metadata(service), "spec": spec}


def _virtual_service(release: Release) -> Manifest:
    service, router = release.service, _router(release.service)

    def destination(revision: str) -> dict[str, Any]:
        host = f"{_lane(revision)}.{service.namespace}.svc.cluster.local"
        return {"host": host, "port": {"number": _PORT}}

    rule: dict[str, Any] = {
        "route": [
            {"destination": destination(revision), "weight": percent} for revision, percent in shares(release).items()
        ]
    }
    if percent := release.traffic.mirror_percent:
        rule["mirror"] = destination(release.revision)
        rule["mirrorPercentage"] = {"value": percent}
    own = f"{service.name}.{service.namespace}.svc.cluster.local"
    spec: dict[str, Any] = {"hosts": [own, *router.hosts], "http": [rule]}
    if router.gateway is not None:
        # the mesh too, so that clients inside it are shared out like those that come in by the gateway
        spec["gateways"] = ["mesh", "/".join(_gateway(service))]
    api_version, kind = _VIRTUAL_SERVICE
    return {"apiVersion": api_version, "kind": kind, "metadata": _metadata(service), "spec": spec}


def _accepted(route: Manifest, router: Router) -> Health:
    """What the Gateway's controller says of an HTTPRoute as it is now."""
    generation = route["metadata"].get("generation", 0)
    parents = (route.get("status") or {}).get("parents") or ()
    conditions = {condition["type"]: condition for parent in parents for condition in parent.get("conditions") or ()}
    for kind in ("Accepted", "ResolvedRefs"):
        condition = conditions.get(kind)
        if condition is None:
            # a controller that is not there never says so
            return Health.stalled(f"no controller of the Gateway {router.gateway} has looked at the HTTPRoute")
        if (condition.get("observedGeneration") or 0) < generation:
            return Health.progressing("the HTTPRoute was changed and the Gateway's controller has not seen that yet")
        if condition["status"] != "True":
            why = ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
            return Health.stalled(f"the HTTPRoute is not taken by the Gateway {router.gateway}: {why}")
    return Health.ready()


def _valid(route: Manifest) -> Health:
    """What Istio says of a VirtualService, which is nothing unless its analysis is switched on."""
    for message in (route.get("status") or {}).get("validationMessages") or ():
        if str(message.get("level", "")).upper() == "ERROR":
            code = (message.get("type") or {}).get("code", "")
            return Health.stalled(
                f"Istio refuses the VirtualService: {code} {message.get('documentationUrl', '')}".strip()
            )
    return Health.ready()
