"""An Nginx of a service's own that shares its requests out: a Deployment, configured in its pods' annotation.

The configuration travels in the pod template (Kubernetes' downward API makes a file of it), so that a change of it is
a rollout like any other: pods of before keep theirs until the last one has gone, and taking it back is a rollout too.

Sources: nginx.org, ngx_http_split_clients_module and ngx_http_mirror_module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Health, HealthState, Router, Service, Tls
from longshore.targets.base import SERVICE_LABEL, Manifest, Ref, Selection
from longshore.targets.pods import LINGER_SECONDS, container_security, pod_security
from longshore.targets.workload import deployment_health

__all__ = [
    "CERTIFICATES",
    "NGINX_IMAGE",
    "NGINX_PORT",
    "NGINX_READY",
    "NGINX_TLS",
    "ROUTE_LABEL",
    "certificate_map",
    "certificate_mount",
    "certificate_volume",
    "https_redirect",
    "nginx_configuration",
    "nginx_deployment",
    "nginx_health",
    "nginx_pods",
    "nginx_ref",
]

NGINX_IMAGE: Final = "docker.io/nginxinc/nginx-unprivileged:1.28"
"""The official image that needs no root."""

NGINX_PORT: Final = 8080
"""Port of the pods."""

NGINX_READY: Final = "/-/nginx/ready"
"""Path at which it answers by itself."""

ROUTE_LABEL: Final = "longshore.dev/route"
"""Label of the pods: the service that they are in front of."""

_SETTING_LABEL: Final = "longshore.dev/route-setting"
_CONFIGURATION: Final = "longshore.dev/nginx.conf"
_DIRECTORY: Final = "/etc/longshore"
_MIRROR: Final = "/-/nginx/mirror"
CERTIFICATES: Final = "/etc/longshore-tls"
_PLAIN: Final = Router(kind="nginx")
# the model server's own limit
_BODY_LIMIT: Final = "32m"
_KEPT_SECONDS: Final = 5
# a server that is told to end closes what has been idle for a second, others after five
_IDLE: Final = "800ms"

_WHOLE: Final = """\
daemon off;
{user}worker_processes 2;
error_log stderr warn;
pid {place}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
{log}    server_tokens off;
{kept}    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    client_max_body_size {body_limit};
    client_body_buffer_size 1m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Request-ID $longshore_id;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_connect_timeout 5s;
    proxy_read_timeout {timeout_seconds}s;
    map $http_x_request_id $longshore_id {{ "~^[A-Za-z0-9._:-]{{1,128}}$" $http_x_request_id; default $request_id; }}
    map {client} $longshore_client {{ "" $remote_addr; default {client}; }}
{parts}
    server {{
        listen {listen};
{tls}        default_type application/json;
        error_page 404 = @unknown;
        error_page 413 = @too_large;
        error_page 429 = @too_many;
        error_page 502 503 = @away;
        error_page 504 = @too_slow;
        location @unknown {{ return 404 '{{"error":"there is no such path"}}'; }}
        location @too_large {{ return 413 '{{"error":"the body is larger than {body_limit}: send fewer rows"}}'; }}
        location @too_many {{
            add_header Retry-After 1 always;
            return 429 '{{"error":"too many requests: come again in a second"}}';
        }}
        location @away {{ return 502 '{{"error":"the revision does not answer: come again"}}'; }}
        location @too_slow {{ return 504 '{{"error":"there was no answer within {timeout_seconds} seconds"}}'; }}
        location = {ready} {{ access_log off; return 200; }}
        location ~ ^/(metrics|admin|static)(/|$) {{ return 404; }}
{locations}
    }}
}}
"""

_SERVE: Final = """\
        location / {{
            add_header X-Longshore-Revision $revision always;
{more}            proxy_pass http://$revision;
        }}"""

# a location that is for Nginx itself only; an answer of its own makes no copy
_COPY: Final = """\
        location = {mirror} {{
            internal;
            if ($copy = "") {{ return 204; }}
            proxy_pass http://$copy$request_uri;
        }}"""


NGINX_TLS: Final = """\
        ssl_certificate $certificates/tls.crt;
        ssl_certificate_key $certificates/tls.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
        ssl_session_cache shared:sessions:2m;
        ssl_session_tickets off;
"""
"""How TLS is spoken, with the certificate of :func:`certificate_map`."""

_LOG: Final = """\
    map $status $logged_status { "~^[1-9]" $status; default null; }
    map $upstream_status $logged_revision { "" ""; default $revision; }
    map $upstream_response_time $logged_upstream { "~(?<last>[0-9.]+)$" $last; default null; }
    log_format requests escape=json '{"time":"$time_iso8601","request_id":"$longshore_id",'
        '"revision":"$logged_revision","method":"$request_method","path":"$uri","status":$logged_status,'
        '"seconds":$request_time,"upstream_seconds":$logged_upstream,"bytes":$body_bytes_sent}';
    access_log /dev/stdout requests;
"""


def nginx_configuration(
    shares: Mapping[str, int],
    hosts: Mapping[str, Sequence[str]],
    mirror: tuple[str, int] | None = None,
    *,
    router: Router = _PLAIN,
    salt: str = "",
    listen: str = str(NGINX_PORT),
    port: int | None = None,
    place: str = "/tmp",  # noqa: S108 - the pod's own
    certificates: str = CERTIFICATES,
    user: str | None = None,
    keeps_idle: bool = False,
) -> str:
    """Nginx's configuration.

    What is no model's business is not let through: ``/metrics``, and the panel of Django at ``/admin``.

    Args:
        shares: Percent of the requests by revision; together 100.
        hosts: Hosts of each revision, with their ports if these are not 80; those of the mirrored one, too. Requests go
            to them in turn, and past one that takes no connection.
        mirror: The revision that gets copies, and of how many percent of the requests.
        router: Who is a client, what it may, for how long it waits, and what is logged; with ``tls``, who comes by HTTP
            is sent to HTTPS.
        salt: Name of the service: clients that keep to a revision are drawn for each service anew.
        listen: Port, or address and port.
        port: Port that clients of HTTPS use; None is 443.
        place: Directory that it may write to.
        certificates: Directory of the certificate ``tls.crt`` and its key ``tls.key``.
        user: Who its workers are, where it is started as root.
        keeps_idle: Whether workers that are told to end leave idle connections open for a while, so that no client
            sends into one that closes: Nginx 1.27.4 and later can.
    """
    parts = [_upstream(revision, servers) for revision, servers in sorted(hosts.items())]
    # the last one takes what is left, and with it what rounding leaves
    *some, (last, _) = shares.items()
    key = f"{salt}$longshore_client" if router.sticky else "$request_id"
    parts.append(_split(key, "revision", dict(some), last))
    more = ""
    if router.requests_per_second is not None:
        rate = router.requests_per_second
        parts.append(f"limit_req_zone $longshore_client zone=clients:10m rate={rate}r/s;")
        parts.append("limit_req_status 429;")
        # as many again at once, which is what clients do that ask once a second
        more += f"            limit_req zone=clients burst={rate} nodelay;\n"
    if router.tls is not None:
        parts.append(certificate_map(certificates))
    locations = []
    if mirror is not None:
        revision, percent = mirror
        more += f"            mirror {_MIRROR};\n"
        # drawn anew: which requests are copied must not depend on who answers them
        given = ({}, revision) if percent == 100 else ({revision: percent}, '""')
        parts.append(_split("mirror$request_id", "copy", *given))
        locations.append(_COPY.format(mirror=_MIRROR))
    return _WHOLE.format(
        body_limit=_BODY_LIMIT,
        timeout_seconds=router.timeout_seconds,
        client=_client(router.client),
        listen=listen if router.tls is None else f"{listen} ssl",
        tls="" if router.tls is None else NGINX_TLS + https_redirect(router.tls, port),
        log=_LOG if router.access_log else "    access_log off;\n",
        place=place,
        user="" if user is None else f"user {user};\n",
        kept=f"    keepalive_min_timeout {_KEPT_SECONDS}s;\n" if keeps_idle else "",
        ready=NGINX_READY,
        parts="\n".join(f"    {part}" for part in parts),
        locations="\n".join([_SERVE.format(more=more), *locations]),
    )


def certificate_map(directory: str) -> str:
    """Where the certificate is: with a variable in its path it is read with each handshake, so a renewed one counts.

    Args:
        directory: Directory of the certificate ``tls.crt`` and its key ``tls.key``.
    """
    return f'map "" $certificates {{ default "{directory}"; }}'


def https_redirect(tls: Tls, port: int | None) -> str:
    """Sends who comes by HTTP to HTTPS.

    Args:
        tls: The certificate.
        port: Port that clients of HTTPS use; None is 443.
    """
    host, where = tls.host or "$host", "" if port in (None, 443) else f":{port}"
    return f"        error_page 497 =308 https://{host}{where}$request_uri;\n"


def _upstream(revision: str, hosts: Sequence[str]) -> str:
    # none is passed over for a while because of one failure: the next one may have another reason
    servers = " ".join(f"server {host} max_fails=0;" for host in hosts)
    return f"upstream {revision} {{ {servers} keepalive 32; keepalive_timeout {_IDLE}; }}"


def _client(named: str) -> str:
    """Nginx's variable of what tells clients apart."""
    kind, _, name = named.partition(":")
    if kind == "address":
        return "$remote_addr"
    return f"$http_{name.lower().replace('-', '_')}" if kind == "header" else f"$cookie_{name}"


def _split(key: str, variable: str, shares: Mapping[str, int], rest: str) -> str:
    lines = "".join(f"{percent}% {value}; " for value, percent in shares.items())
    return f'split_clients "{key}" ${variable} {{ {lines}* {rest}; }}'


def nginx_ref(service: Service) -> Ref:
    """The Deployment."""
    return Ref("apps/v1", "Deployment", f"{service.name}-route", service.namespace)


def nginx_pods(service: Service) -> Selection:
    """Its pods."""
    return Selection("v1", "Pod", service.namespace, {ROUTE_LABEL: service.name})


def nginx_deployment(service: Service, router: Router, configuration: str) -> Manifest:
    """The Deployment, whose pods have no more than they need and answer until every node knows that they leave."""
    ref = nginx_ref(service)
    selector = {ROUTE_LABEL: service.name}
    probe = {"path": NGINX_READY, "port": "http", **({} if router.tls is None else {"scheme": "HTTPS"})}
    mounts, volumes = _certificate(router)
    container: dict[str, Any] = {
        "name": "nginx",
        "image": router.image or NGINX_IMAGE,
        # its default log is none that it could write to
        "command": ["nginx", "-e", "stderr", "-c", f"{_DIRECTORY}/nginx.conf"],
        "ports": [{"name": "http", "containerPort": NGINX_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": probe, "periodSeconds": 1},
        "livenessProbe": {"httpGet": probe, "timeoutSeconds": 5, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LINGER_SECONDS)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "configuration", "mountPath": _DIRECTORY, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            *mounts,
        ],
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }
    file = {"path": "nginx.conf", "fieldRef": {"fieldPath": f"metadata.annotations['{_CONFIGURATION}']"}}
    return {
        "apiVersion": ref.api_version,
        "kind": ref.kind,
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {**service.labels, SERVICE_LABEL: service.name},
            "annotations": dict(service.annotations),
        },
        "spec": {
            "replicas": router.replicas,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": {**service.labels, **selector, _SETTING_LABEL: _setting(router, configuration)},
                    "annotations": {_CONFIGURATION: configuration},
                },
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(),
                    "containers": [container],
                    "volumes": [
                        {"name": "configuration", "downwardAPI": {"items": [file]}},
                        {"name": "scratch", "emptyDir": {}},
                        *volumes,
                    ],
                },
            },
        },
    }


def nginx_health(service: Service, router: Router, configuration: str, observed: Sequence[Manifest]) -> Health:
    """Whether all pods share requests out by this configuration, and none by another any more."""
    name = nginx_ref(service).name
    deployment = next((m for m in observed if m["kind"] == "Deployment" and m["metadata"]["name"] == name), None)
    if deployment is None:
        return Health.progressing(f"the Deployment {name} is not there yet")
    setting = _setting(router, configuration)
    if deployment["spec"]["template"]["metadata"]["labels"].get(_SETTING_LABEL) != setting:
        return Health.failed(f"somebody else changed the Deployment {name}: it does not share requests out as asked")
    pods = [m for m in observed if m["kind"] == "Pod" and ROUTE_LABEL in m["metadata"].get("labels", {})]
    ours = [pod for pod in pods if pod["metadata"]["labels"].get(_SETTING_LABEL) == setting]
    events = [m for m in observed if m["kind"] == "Event"]
    health = deployment_health(deployment, ours, events)
    if health.state is HealthState.READY and len(ours) < len(pods):
        return Health.progressing(f"{len(pods) - len(ours)} pods of {name} that share out as before are ending")
    return health


def _setting(router: Router, configuration: str) -> str:
    # another certificate takes other pods, too
    told = configuration if router.tls is None else f"{router.tls.secret}\n{configuration}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _certificate(router: Router) -> tuple[list[Manifest], list[Manifest]]:
    """Where the certificate is in the container, and the volume that it comes from; nothing without TLS."""
    if router.tls is None:
        return [], []
    if router.tls.secret is None:
        raise InvalidValue("Tls.cert_file", router.tls.cert_file, "on Kubernetes the certificate is in a Secret")
    return [certificate_mount()], [certificate_volume(router.tls.secret)]


def certificate_mount() -> Manifest:
    """Where the certificate of :func:`certificate_volume` is in a container."""
    return {"name": "certificate", "mountPath": CERTIFICATES, "readOnly": True}


def certificate_volume(secret: str | None) -> Manifest:
    """The certificate and its key, and nothing else that is in the Secret."""
    items = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
    return {"name": "certificate", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}
