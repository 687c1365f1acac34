"""A cluster as tests see it, whoever started it."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import ApiException

__all__ = ["Cluster", "eventually", "write_kubeconfig"]

_T = TypeVar("_T")
_RETRY_SECONDS = 0.05
_NOT_YET = (OSError, HTTPException, ApiException, urllib3.exceptions.HTTPError)


def eventually(ask: Callable[[], _T], what: str, seconds: float = 60) -> _T:
    """The first true answer; raises TimeoutError with ``what`` and the last refusal if there is none in time."""
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except _NOT_YET as error:
            last = error
        time.sleep(_RETRY_SECONDS)
    raise TimeoutError(f"{what}: not within {seconds:g} s" + (f" ({last})" if last else ""))


def write_kubeconfig(
    path: Path,
    server: str,
    authority: bytes,
    *,
    token: str | None = None,
    certificate: tuple[Path, Path] | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig with one context."""
    user: dict[str, Any] = {} if token is None else {"token": token}
    if certificate is not None:
        user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    return path


class Cluster:
    """A Kubernetes cluster that a test may use.

    Args:
        kubeconfig: The kubeconfig of an administrator.
        folder: Where further kubeconfigs are written.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self._folder = folder
        configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        self._client = client.ApiClient(configuration)
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self.url: str = configuration.host
        self.authority = Path(configuration.ssl_ca_cert).read_bytes()

    def pool(self) -> tuple[urllib3.PoolManager, dict[str, str]]:
        """Connections to the API server, and the headers of its administrator, for requests of another kind."""
        configuration = self._client.configuration
        pool = urllib3.PoolManager(
            ca_certs=configuration.ssl_ca_cert,
            cert_file=configuration.cert_file,
            key_file=configuration.key_file,
            maxsize=64,
        )
        token = configuration.get_api_key_with_prefix("authorization")
        return pool, {} if token is None else {"Authorization": token}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> Any:
        """One request as the administrator.

        Args:
            method: HTTP method.
            path: Path, from the first slash.
            body: Sent as JSON.
            query: Query parameters.
            kind: Content type, if not JSON.

        Returns:
            The answer.
        """
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        answer, _, _ = self._client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
        )
        return answer

    def apply(self, manifest: Mapping[str, Any], manager: str = "harness") -> Any:
        """Server-side apply; what others own is taken over."""
        query = {"fieldManager": manager, "force": "true"}
        # a path may answer 404 for a moment after its CRD was established
        return eventually(
            lambda: self.request(
                "PATCH", self.path(manifest), manifest, query=query, kind="application/apply-patch+yaml"
            ),
            f"{manifest['kind']} {manifest['metadata']['name']} applied",
            20,
        )

    def path(self, manifest: Mapping[str, Any]) -> str:
        """Path of an object."""
        version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._plurals:
            for entry in self.request("GET", root)["resources"]:
                if "/" not in entry["name"]:
                    self._plurals[version, entry["kind"]] = (entry["name"], entry["namespaced"])
        if (version, kind) not in self._plurals:
            raise OSError(f"the cluster does not know {kind} ({version}) yet")
        plural, namespaced = self._plurals[version, kind]
        place = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{root}{place}/{plural}/{metadata['name']}"

    def get(self, path: str) -> Any | None:
        """An object, None if there is none."""
        try:
            return self.request("GET", path)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def log(self, namespace: str, pod: str) -> str:
        """What a pod's only container has written."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        headers = {"Accept": "*/*"}
        # read as it is: the client would make a Python value of what looks like one
        answer, _, _ = self._client.call_api(
            path, "GET", header_params=headers, auth_settings=["BearerToken"], _preload_content=False
        )
        text: str = answer.data.decode(errors="replace")
        return text

    def namespace(self, prefix: str = "t") -> str:
        """A fresh namespace that is ready for pods."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        eventually(lambda: self.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), f"namespace {name}")
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace. What its pods had of their nodes is free at once, the rest ends when it ends."""
        self.request("DELETE", f"/api/v1/namespaces/{name}")
        # nothing new is admitted any more, so nothing takes their place
        self.request("DELETE", f"/api/v1/namespaces/{name}/pods", query={"gracePeriodSeconds": "0"})

    def token(self, namespace: str, service_account: str, seconds: int = 3600) -> str:
        """A token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.request("POST", path, {"spec": {"expirationSeconds": seconds}})
        token: str = answer["status"]["token"]
        return token

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig of a service account; the account is made if it is not there."""
        metadata = {"name": service_account, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return write_kubeconfig(
            self._folder / f"{namespace}-{service_account}.kubeconfig",
            self.url,
            self.authority,
            token=self.token(namespace, service_account),
            namespace=namespace,
        )

    def kubectl(self, *arguments: str, command: str | Path = "kubectl") -> str:
        """Run kubectl as the administrator and return its output."""
        argv = [str(command), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self._folder}/kubectl", *arguments]
        return subprocess.run(argv, check=True, text=True, capture_output=True).stdout
