"""Requests to one cluster: where it is, who asks, and what to do when it does not answer at once.

Nothing in longshore outside this package imports ``kubernetes``, and within it only this module does.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import urllib3
import yaml
from kubernetes import config as loader
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.config import ConfigException
from kubernetes.stream import portforward

from longshore.cluster.refusals import Request, not_installed, refusal, temporary
from longshore.errors import ClusterError
from longshore.targets.base import Manifest

__all__ = ["APPLY", "METADATA", "Overloaded", "Resource", "Session", "Stream", "in_pod", "pauses"]

APPLY: Final = "application/apply-patch+yaml"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""An object without its content."""

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 60.0
_FIRST_PATIENCE: Final = 3.0
_PATIENCE: Final = 60.0
_BACKOFF: Final = (0.05, 5.0)
_CONNECTIONS: Final = 64
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def in_pod() -> bool:
    """Whether this process runs in a pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


@dataclass(frozen=True)
class Resource:
    """A kind as the API server serves it.

    Args:
        api_version: Group and version.
        kind: The kind.
        plural: Its name in paths.
        namespaced: Whether its objects are in namespaces.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Path of an object, or of all of a namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = ["namespaces", namespace] if self.namespaced and namespace is not None else []
        parts += [self.plural, *([] if name is None else [name])]
        return root + "".join(f"/{quote(part, safe='')}" for part in parts)


class Session:
    """A cluster and who asks it. Safe to use from several threads; several clusters at once are several sessions.

    Args:
        configuration: Address, certificates and credentials.
        name: What its user calls the cluster, for messages.
        namespace: The namespace that objects without one go to.
        renew: Gives a configuration with fresh credentials; called when the cluster refuses those there are.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        name: str | None = None,
        namespace: str = "default",
        renew: Callable[[], Configuration] | None = None,
    ) -> None:
        self.name = name or configuration.host
        self.namespace = namespace
        self._renew = renew
        self._client = _client(configuration)
        self._lock = threading.Lock()
        self._resources: dict[str, dict[str, Resource]] = {}
        self._answered = False

    @classmethod
    def default(cls) -> Session:
        """The cluster at hand: that of the pod this process runs in, else the kubeconfig's current context."""
        return cls.in_cluster() if in_pod() else cls.from_kubeconfig()

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str] | None = None, context: str | None = None) -> Session:
        """A cluster of a kubeconfig.

        Args:
            path: The file; by default those in ``KUBECONFIG``, else ``~/.kube/config``.
            context: Name of the context; by default the current one.

        Raises:
            ClusterError: If there is no such file or context.
        """
        # the client reads this variable once, when it is imported
        file = os.fspath(path) if path is not None else os.environ.get("KUBECONFIG") or None

        def load() -> Configuration:
            configuration = Configuration()
            loader.load_kube_config(file, context=context, client_configuration=configuration)
            return configuration

        try:
            contexts, current = loader.list_kube_config_contexts(file)
            chosen = current if context is None else next((c for c in contexts if c["name"] == context), None)
            if chosen is None:
                names = ", ".join(c["name"] for c in contexts)
                raise ClusterError(f"the kubeconfig has no context {context!r}; it has {names}", "NoCluster")
            configuration = load()
        except (ConfigException, OSError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            where = file or "~/.kube/config"
            raise ClusterError(
                f"no cluster: {where} names none that can be used ({error}). Point KUBECONFIG to a kubeconfig, "
                "or choose the platform 'local', which needs no cluster",
                "NoCluster",
            ) from error
        namespace = chosen["context"].get("namespace") or "default"
        return cls(configuration, name=chosen["name"], namespace=namespace, renew=load)

    @classmethod
    def in_cluster(cls) -> Session:
        """The cluster of the pod that this process runs in, as the pod's service account.

        Raises:
            ClusterError: If the pod has no token.
        """

        def load() -> Configuration:
            configuration = Configuration()
            loader.load_incluster_config(client_configuration=configuration)
            return configuration

        try:
            configuration = load()
        except ConfigException as error:
            raise ClusterError(
                f"this pod cannot ask its cluster: {error}. Give the pod a service account, and do not set "
                "automountServiceAccountToken to false",
                "NoCluster",
            ) from error
        namespace = _SERVICE_ACCOUNT / "namespace"
        return cls(
            configuration,
            name="of this pod",
            namespace=namespace.read_text().strip() if namespace.exists() else "default",
            renew=load,
        )

    def resource(self, api_version: str, kind: str) -> Resource:
        """How the cluster serves a kind.

        Raises:
            ClusterError: If it does not; names the product that brings the kind.
        """
        known = self._resources.get(api_version, {})
        if kind not in known:
            # asked anew for a kind that was not there: its product may have been installed since
            known = self._resources[api_version] = self._discover(api_version, kind)
        if kind not in known:
            raise not_installed(api_version, kind, self.name)
        return known[kind]

    def request(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        patience: float | None = None,
    ) -> dict[str, Any]:
        """Ask, again where the cluster is overloaded or away for a moment, and return its answer.

        Args:
            method: HTTP method.
            path: Path, from the first slash.
            subject: What it is about, for the error.
            query: Query parameters.
            body: What to send.
            content_type: What that is.
            accept: What the answer shall be: :data:`METADATA` has no content in it.
            patience: Seconds in which to ask again; by default a minute, and a few for the first request.

        Raises:
            ClusterError: If the cluster refuses or cannot be reached.
        """
        answer: dict[str, Any] = json.loads(
            self.raw(
                method,
                path,
                subject,
                query=query,
                body=body,
                content_type=content_type,
                accept=accept,
                patience=patience,
            )
        )
        return answer

    def raw(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        patience: float | None = None,
    ) -> bytes:
        """As :meth:`request`, for an answer that is no JSON."""
        data = None if body is None else json.dumps(body).encode()
        asked = Request(method, subject, self.name)
        seconds = patience if patience is not None else (_PATIENCE if self._answered else _FIRST_PATIENCE)
        deadline = time.monotonic() + seconds
        renewed = False
        for pause in pauses():
            client = self._client
            try:
                response = self._send(client, method, path, query, data, content_type, accept=accept)
            except urllib3.exceptions.HTTPError as error:
                wait, failure = pause, _unreachable(error, asked, client.configuration.host)
                # a certificate does not become right by asking again
                if isinstance(error, urllib3.exceptions.SSLError):
                    raise failure from error
            else:
                self._answered = True
                if response.status < 400:
                    return response.data
                answer = _status(response.data)
                failure = refusal(response.status, answer, asked)
                if response.status == 401 and not renewed and self._renewed(client):
                    renewed = True
                    continue
                if not temporary(response.status, answer):
                    raise failure
                wait = _retry_after(response) or pause
            if time.monotonic() + wait > deadline:
                raise failure
            time.sleep(wait)
        raise AssertionError("pauses never end")

    def stream(self, path: str, subject: str, query: Mapping[str, Any], read_seconds: float) -> Stream:
        """Open a watch; one attempt.

        Raises:
            ClusterError: If it is refused or the cluster cannot be reached.
        """
        client = self._client
        asked = Request("GET", subject, self.name)
        try:
            response = self._send(client, "GET", path, query, None, "application/json", read_seconds, stream=True)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error, asked, client.configuration.host) from error
        if response.status >= 400:
            answer = _status(response.read())
            response.release_conn()
            if response.status == 401 and self._renewed(client):
                raise ClusterError("the credentials were renewed", "Unreachable")
            failure = refusal(response.status, answer, asked)
            if temporary(response.status, answer):
                raise Overloaded(failure, _retry_after(response))
            raise failure
        return Stream(response, asked)

    def port_forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A connection to a port of a pod.

        Raises:
            ClusterError: If the cluster refuses it.
        """
        # of its own: the stream module swaps the client's request method while it connects
        api = CoreV1Api(ApiClient(self._client.configuration))
        try:
            forward = portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except ApiException as error:
            asked = Request("POST", f"a connection to port {port} of Pod {namespace}/{pod}", self.name)
            raise refusal(error.status or 502, {"message": str(error.reason)}, asked) from error
        _close_whole(forward.websocket)
        connection: socket.socket = forward.socket(port)
        return connection

    def close(self) -> None:
        """Close all connections."""
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    def _send(
        self,
        client: ApiClient,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        data: bytes | None,
        content_type: str,
        read_seconds: float = _READ_SECONDS,
        *,
        accept: str = "application/json",
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept, "User-Agent": "longshore"}
        if data is not None:
            headers["Content-Type"] = content_type
        client.update_params_for_auth(headers, [], ["BearerToken"])
        url = client.configuration.host.rstrip("/") + path
        if query:
            url += "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in query.items())
        response: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
            method,
            url,
            body=data,
            headers=headers,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
            retries=False,
            redirect=False,
            preload_content=not stream,
        )
        return response

    def _renewed(self, refused: ApiClient) -> bool:
        """Take fresh credentials, unless another thread has done so already."""
        with self._lock:
            if self._client is not refused:
                return True
            if self._renew is None:
                return False
            with contextlib.suppress(ConfigException, OSError):
                self._client = _client(self._renew())
                return True
        return False

    def _discover(self, api_version: str, kind: str) -> dict[str, Resource]:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            found = self.request("GET", root, f"the list of resources of {api_version}")
        except ClusterError as error:
            if error.reason in ("NotFound", "404"):
                raise not_installed(api_version, kind, self.name) from error
            raise
        return {
            entry["kind"]: Resource(api_version, entry["kind"], entry["name"], entry["namespaced"])
            for entry in found["resources"]
            if "/" not in entry["name"]
        }


class Overloaded(ClusterError):
    """The cluster asks to come back later.

    Args:
        refused: Its words.
        retry_after: Seconds that it asks for, None if it names none.
    """

    def __init__(self, refused: ClusterError, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(str(refused), refused.reason)


class Stream:
    """An open watch: iterating it gives its events, as they come, until the server ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse, asked: Request) -> None:
        self._response = response
        self._asked = asked

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest = b""
        try:
            for chunk in self._response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield json.loads(line)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterError(f"{self._asked.subject}: the watch broke off: {error}", "Unreachable") from error
        finally:
            self._response.close()

    def end(self) -> None:
        """Wake up whoever waits for an event: none comes any more."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self._response.shutdown()


def _close_whole(websocket: Any) -> None:
    """Have a stream close its connection where the pod has ended it first, which the client leaves open."""
    end = websocket.close

    def close() -> None:
        end()
        websocket.shutdown()

    websocket.close = close


def pauses() -> Iterator[float]:
    """Growing pauses, spread so that many clients do not come back at once."""
    pause, longest = _BACKOFF
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - nothing to guess here
        pause = min(longest, pause * 2)


def _client(configuration: Configuration) -> ApiClient:
    configuration.connection_pool_maxsize = max(_CONNECTIONS, configuration.connection_pool_maxsize)
    return ApiClient(configuration)


def _status(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        answer = json.loads(data)
        if isinstance(answer, dict):
            return answer
    return {"message": data[:500].decode(errors="replace")}


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _unreachable(error: Exception, asked: Request, host: str) -> ClusterError:
    why = getattr(error, "reason", None) or error
    return ClusterError(
        f"{asked.failed}: the cluster {asked.cluster} does not answer at {host} ({why}). "
        "Is it running, and is it the one you mean (kubectl config current-context)?",
        "Unreachable",
    )
