"""An Nginx in a pod, in front of a server that listens on loopback only: asks for tokens, and speaks TLS.

For servers that cannot be given tokens, or have an API beside that nobody else is to reach. It lets through what is for
clients, answers whether the pod is ready, and hands out metrics at a port of their own.

Sources: nginx.org, ngx_http_map_module, ngx_http_auth_request_module, ngx_http_grpc_module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from longshore.spec import Tls
from longshore.targets.nginx import (
    CERTIFICATES,
    NGINX_IMAGE,
    NGINX_TLS,
    certificate_map,
    certificate_mount,
    certificate_volume,
    https_redirect,
)
from longshore.targets.pods import LINGER_SECONDS, container_security

__all__ = [
    "GATE_ANNOTATION",
    "GATE_GRPC",
    "GATE_HTTP",
    "GATE_METRICS",
    "Behind",
    "gate_configuration",
    "gate_container",
    "gate_volumes",
]

GATE_HTTP: Final = 8080
GATE_GRPC: Final = 9000
GATE_METRICS: Final = 8082
"""Ports of the pod."""

GATE_ANNOTATION: Final = "longshore.dev/gate.conf"
"""Of the pod: its configuration, of which Kubernetes makes a file."""

GATE_READY: Final = "/-/gate/ready"

_DIRECTORY: Final = "/etc/longshore-gate"
_TOKENS: Final = "/etc/longshore-tokens"
_BODY_LIMIT: Final = "32m"
# the server has a time limit of its own, and says so
_TIMEOUT_SECONDS: Final = 3600

_WHOLE: Final = """\
daemon off;
{user}worker_processes 2;
error_log stderr warn;
pid {place}/gate.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    client_max_body_size {body_limit};
    client_body_buffer_size 1m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    # what is behind has no use for it, and may log it
    proxy_set_header Authorization "";
    grpc_set_header Authorization "";
    proxy_connect_timeout 5s;
    proxy_read_timeout {timeout}s;
    grpc_read_timeout {timeout}s;
    map $http_authorization $gate_lets {{ {tokens} }}
{tls}    upstream server {{ server {http}; keepalive 32; }}
    upstream rpc {{ server {grpc}; keepalive 8; }}
    server {{
        listen {listen_http}{ssl};
{redirect}        default_type application/json;
        error_page 401 = @token;
        error_page 404 = @unknown;
        error_page 413 = @too_large;
        error_page 502 504 = @away;
        location @token {{
            add_header WWW-Authenticate Bearer always;
            return 401 '{{"error":"{token_words}: send the header Authorization: Bearer TOKEN"}}';
        }}
        location @unknown {{ return 404 '{{"error":"there is no such path"}}'; }}
        location @too_large {{ return 413 '{{"error":"the body is larger than {body_limit}: send fewer rows"}}'; }}
        location @away {{ return 502 '{{"error":"the server does not answer: come again"}}'; }}
        location = /-/gate/health {{ internal; proxy_pass http://{health}; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; }}
        location ~ ^({ready}|/v2/health/ready)$ {{
            error_page 500 502 504 = @away;
            auth_request /-/gate/health;
            try_files /- @ready;
        }}
        location = /v2/health/live {{ return 200 '{{"live":true}}'; }}
        location @ready {{ return 200 '{{"ready":true,"revision":"{revision}"}}'; }}
        location ~ ^/({paths})(/|$) {{
            if ($gate_lets = 0) {{ return 401; }}
            add_header X-Longshore-Revision {revision} always;
            proxy_pass http://server;
        }}
        location / {{ return 404; }}
    }}
    server {{
        listen {listen_grpc}{ssl} http2;
        error_page 401 = @token;
        location @token {{
            default_type application/grpc;
            add_header grpc-status 16;
            add_header grpc-message "{token_words}: send the metadata authorization: Bearer TOKEN";
            return 204;
        }}
        location / {{
            if ($gate_lets = 0) {{ return 401; }}
            grpc_pass grpc://rpc;
        }}
    }}
    server {{
        listen {listen_metrics};
        location = /metrics {{ proxy_pass http://{metrics}; }}
        location / {{ return 404; }}
    }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Behind:
    """The server behind the gate.

    Args:
        http: Host and port where it answers.
        grpc: Where it speaks gRPC.
        metrics: Where ``/metrics`` is.
        health: Host, port and path where 200 is answered as long as it is well.
        paths: First segments of the paths that are for clients, as alternatives of a regular expression.
    """

    http: str
    grpc: str
    metrics: str
    health: str
    paths: str


def gate_configuration(
    behind: Behind,
    *,
    revision: str,
    asks_tokens: bool,
    tls: Tls | None,
    port: int | None = None,
    listen: str = "",
    ports: tuple[int, int, int] = (GATE_HTTP, GATE_GRPC, GATE_METRICS),
    place: str = "/tmp",  # noqa: S108 - the pod's own
    tokens: str = _TOKENS,
    certificates: str = CERTIFICATES,
    user: str | None = None,
) -> str:
    """Nginx's configuration.

    Args:
        behind: The server.
        revision: The revision that it serves.
        asks_tokens: Whether only those are let through who send a token of the list.
        tls: Has clients come by TLS; who comes by HTTP is sent to HTTPS.
        port: Port that clients of HTTPS use; None is 443.
        listen: Address, with a colon; none is all.
        ports: Those for HTTP, gRPC and metrics.
        place: Directory that it may write to.
        tokens: Directory with the list ``tokens.conf``.
        certificates: Directory of the certificate ``tls.crt`` and its key ``tls.key``.
        user: Who its workers are, where it is started as root.
    """
    return _WHOLE.format(
        body_limit=_BODY_LIMIT,
        token_words="a token is needed that is known here",  # noqa: S106
        timeout=_TIMEOUT_SECONDS,
        tokens=f"default 0; include {tokens}/tokens.conf;" if asks_tokens else "default 1;",
        tls="" if tls is None else f"    {certificate_map(certificates)}\n{NGINX_TLS}",
        redirect="" if tls is None else https_redirect(tls, port),
        ssl="" if tls is None else " ssl",
        listen_http=f"{listen}{ports[0]}",
        listen_grpc=f"{listen}{ports[1]}",
        listen_metrics=f"{listen}{ports[2]}",
        http=behind.http,
        grpc=behind.grpc,
        metrics=behind.metrics,
        health=behind.health,
        paths=behind.paths,
        ready=GATE_READY,
        revision=revision,
        place=place,
        user="" if user is None else f"user {user};\n",
    )


def gate_container(*, image: str | None, asks_tokens: bool, tls: Tls | None) -> dict[str, Any]:
    """The container; it ends once it has answered what has begun, which the image's stop signal sees to.

    Args:
        image: Its image; None is the official one that needs no root.
        asks_tokens: Whether it has a list of tokens.
        tls: Its certificate.
    """
    mounts = [
        {"name": "gate", "mountPath": _DIRECTORY, "readOnly": True},
        {"name": "gate-scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
    ]
    if asks_tokens:
        mounts.append({"name": "gate-tokens", "mountPath": _TOKENS, "readOnly": True})
    if tls is not None:
        mounts.append(certificate_mount())
    ready = {"path": GATE_READY, "port": "http", **({} if tls is None else {"scheme": "HTTPS"})}
    return {
        "name": "gate",
        "image": image or NGINX_IMAGE,
        "command": ["nginx", "-e", "stderr", "-c", f"{_DIRECTORY}/nginx.conf"],
        "ports": [
            {"name": "http", "containerPort": GATE_HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GATE_GRPC, "protocol": "TCP"},
            {"name": "metrics", "containerPort": GATE_METRICS, "protocol": "TCP"},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "timeoutSeconds": 5, "failureThreshold": 6},
        # requests still arrive until every node knows that the pod is leaving
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LINGER_SECONDS)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }


def gate_volumes(*, asks_tokens: bool, tls: Tls | None) -> list[dict[str, Any]]:
    """The volumes of the container; ``gate-tokens`` is to be filled before it starts, and never reaches a disk."""
    file = {"path": "nginx.conf", "fieldRef": {"fieldPath": f"metadata.annotations['{GATE_ANNOTATION}']"}}
    volumes: list[dict[str, Any]] = [
        {"name": "gate", "downwardAPI": {"items": [file]}},
        {"name": "gate-scratch", "emptyDir": {}},
    ]
    if asks_tokens:
        volumes.append({"name": "gate-tokens", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if tls is not None:
        volumes.append(certificate_volume(tls.secret))
    return volumes
