"""The metrics API of a cluster, as metrics-server serves it, with the usage that a test chooses.

Fake pods use nothing that could be measured. All else is real: the API server hands requests on to this server as an
aggregated API, and the HorizontalPodAutoscaler's controller asks it.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from harness.cluster import Cluster, eventually
from harness.plane import Plane

__all__ = ["Metrics"]

_GROUP = "metrics.k8s.io"
_API = f"/apis/{_GROUP}/v1beta1"
_HOST = "metrics.kube-system.svc"


class Metrics:
    """Serves metrics on loopback as long as it is entered.

    Args:
        plane: The control plane, whose authority signs the server's certificate.
        cluster: The same as its administrator sees it.

    Attributes:
        usage: What each pod of a namespace uses, as quantities by resource; pods of others have no metrics.
    """

    def __init__(self, plane: Plane, cluster: Cluster) -> None:
        self._cluster = cluster
        self.usage: dict[str, Mapping[str, str]] = {}
        certificate, key = plane.authority.issue("metrics", "metrics", hosts=[_HOST])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer = metrics._answer(self.path)
                body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "code": 404}).encode()
                self.send_response(200 if answer else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: it is asked every second."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics")
        self._authority = plane.authority

    def __enter__(self) -> Self:
        self._thread.start()
        port = self._server.server_address[1]
        # the API server follows an external name, which is how a process on loopback is reached
        service = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port, "name": "https"}]}
        place = {"name": "metrics", "namespace": "kube-system"}
        self._cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": service})
        registered = self._registration(port)
        self._cluster.apply(registered)
        eventually(lambda: self._cluster.get(_API), "the metrics API")
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.request("DELETE", self._cluster.path(self._registration(0)))
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _registration(self, port: int) -> dict[str, Any]:
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1beta1.{_GROUP}"},
            "spec": {
                "group": _GROUP,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": "metrics", "namespace": "kube-system", "port": port},
                "caBundle": base64.b64encode(self._authority.pem).decode(),
            },
        }

    def _answer(self, target: str) -> dict[str, Any] | None:
        parts = urlsplit(target)
        path = parts.path.rstrip("/")
        if path == _API:
            pods = {
                "name": "pods",
                "singularName": "",
                "namespaced": True,
                "kind": "PodMetrics",
                "verbs": ["get", "list"],
            }
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{_GROUP}/v1beta1",
                "resources": [pods],
            }
        words = path.removeprefix(f"{_API}/namespaces/").split("/")
        if not path.startswith(f"{_API}/namespaces/") or words[1:] != ["pods"]:
            return None
        selector = parse_qs(parts.query).get("labelSelector", [""])[0]
        return {
            "kind": "PodMetricsList",
            "apiVersion": f"{_GROUP}/v1beta1",
            "metadata": {},
            "items": list(self._items(words[0], selector)),
        }

    def _items(self, namespace: str, selector: str) -> Iterator[dict[str, Any]]:
        usage = self.usage.get(namespace)
        if usage is None:
            return
        pods = self._cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for pod in pods["items"]:
            containers = [{"name": one["name"], "usage": dict(usage)} for one in pod["spec"]["containers"]]
            metadata = {"name": pod["metadata"]["name"], "namespace": namespace, "creationTimestamp": now}
            yield {"metadata": metadata, "timestamp": now, "window": "1s", "containers": containers}
