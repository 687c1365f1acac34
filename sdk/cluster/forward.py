"""A service of a cluster on this machine's loopback, through the API server: what ``kubectl port-forward`` does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from longshore.cluster.session import Resource, Session
from longshore.errors import ClusterError
from longshore.spec import Endpoint
from longshore.spec.outcome import service_of
from longshore.targets.base import REVISION_LABEL

__all__ = ["forwarded"]

_SERVICES: Final = Resource("v1", "Service", "services", namespaced=True)
_PODS: Final = Resource("v1", "Pod", "pods", namespaced=True)
_CHUNK: Final = 65536
# of the proxy that Knative puts in front of a server
_KNATIVE_PORT: Final = "queue-port"

_PATIENCE_SECONDS: Final = 10.0
"""A kubelet that has much to do says of a pod for a moment that it is not ready."""

_LOOK_SECONDS: Final = 0.5


@contextlib.contextmanager
def forwarded(session: Session, endpoint: Endpoint) -> Iterator[Endpoint]:
    """An endpoint inside a cluster, as one on loopback; any other as it is.

    Args:
        session: The cluster.
        endpoint: One whose URL is a name in the cluster's DNS is forwarded.

    Raises:
        ClusterError: If no pod behind the service is ready.
    """
    with contextlib.ExitStack() as listeners:

        def here(url: str) -> str:
            return url if service_of(url) is None else listeners.enter_context(_forwarded(session, url, revision))

        revision, grpc = endpoint.revision, endpoint.grpc_url
        url, grpc = here(endpoint.url), None if grpc is None else here(grpc)
        own = endpoint.revision_url
        if (url, grpc) != (endpoint.url, endpoint.grpc_url):
            own = url if own == endpoint.url else None
        yield replace(endpoint, url=url, grpc_url=grpc, revision_url=own)


@contextlib.contextmanager
def _forwarded(session: Session, address: str, revision: str) -> Iterator[str]:
    there, url = service_of(address), urlsplit(address)
    assert there is not None  # noqa: S101 - for the type checker: only such are forwarded
    pod, port = _pod_behind(session, there[1], there[0], url.port or (443 if url.scheme == "https" else 80), revision)
    with _Listener(session, there[1], pod, port) as local:
        yield f"{url.scheme}://127.0.0.1:{local.port}{url.path}"


def _pod_behind(session: Session, namespace: str, service: str, port: int, revision: str) -> tuple[str, int]:
    """A ready pod that a service sends requests to, and the port there."""
    subject = f"Service {namespace}/{service}"
    spec = session.request("GET", _SERVICES.path(namespace, service), subject)["spec"]
    target = next((entry.get("targetPort", port) for entry in spec.get("ports") or () if entry["port"] == port), port)
    selector = spec.get("selector")
    if not selector:
        # it leads to an ingress, as Knative's do, and only the revision's own pods can be told from here
        selector, target = {REVISION_LABEL: revision}, _KNATIVE_PORT
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    query, deadline = {"labelSelector": labels}, time.monotonic() + _PATIENCE_SECONDS
    while True:
        pods = session.request("GET", _PODS.path(namespace), f"the pods behind {subject}", query=query)["items"]
        pod = next(filter(_is_ready, pods), None)
        if pod is not None:
            return pod["metadata"]["name"], _port_of(pod, target)
        if not pods or time.monotonic() > deadline:
            raise ClusterError(f"{subject}: no pod behind it is ready", "NotReady")
        time.sleep(_LOOK_SECONDS)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _port_of(pod: dict[str, Any], port: str | int) -> int:
    if isinstance(port, int):
        return port
    ports = [entry for container in pod["spec"]["containers"] for entry in container.get("ports") or ()]
    number = next((entry["containerPort"] for entry in ports if entry.get("name") == port), None)
    if number is None:
        raise ClusterError(f"Pod {pod['metadata']['name']} has no port named {port!r}", "Invalid")
    return int(number)


class _Listener:
    """Listens on loopback; each connection is a stream of its own to the pod."""

    def __init__(self, session: Session, namespace: str, pod: str, port: int) -> None:
        self._session, self._namespace, self._pod, self._pod_port = session, namespace, pod, port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=f"forward to {pod}", daemon=True)

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # closing alone does not wake up a thread that accepts
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(
                    target=self._serve, args=(client,), name=f"forward to {self._pod}", daemon=True
                ).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ClusterError):
            far = self._session.port_forward(self._namespace, self._pod, self._pod_port)
            with contextlib.closing(far):
                back = threading.Thread(target=_copy, args=(far, client), daemon=True)
                back.start()
                _copy(client, far)
                back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
