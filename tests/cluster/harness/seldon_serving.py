"""SeldonDeployments whose pods answer: Seldon's real microservice as processes of this machine, behind fake pods.

What is asked of a pod's executor is answered by the microservice itself, which speaks the same protocol. A pod becomes
ready with its process, so that what is not up gets no request.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubernetes.client.rest import ApiException

from harness.cluster import Cluster, eventually
from harness.fleet import FAIL, HELD, forward
from harness.seldon import Microservice, serving
from harness.seldon_operator import SeldonOperator

__all__ = ["ServingSeldonOperator"]

_REVISION = "longshore.dev/revision"
_KINDS: dict[str, Callable[[str], Any]] = {"INT": int, "FLOAT": float, "BOOL": "true".__eq__, "STRING": str}
_REST, _GRPC = 8000, 5001

_ASK = """
import sys
from kubernetes import client, config
from kubernetes.stream import portforward
kubeconfig, namespace, pod, port = sys.argv[1:]
config.load_kube_config(kubeconfig)
forward = client.CoreV1Api().connect_get_namespaced_pod_portforward
with portforward(forward, pod, namespace, ports=port).socket(int(port))._socket as connection:
    connection.settimeout(5)
    connection.sendall(b"GET /health/ping HTTP/1.0\\r\\n\\r\\n")
    print(connection.recv(16).decode(), flush=True)
"""


class ServingSeldonOperator(SeldonOperator):
    """Serves what longshore packaged; see :class:`SeldonOperator`.

    Args:
        cluster: A fleet with Seldon's CRD.
        namespace: The namespace it works in.
        started: Called with a revision and its microservice.

    Attributes:
        servers: The microservices by revision.
    """

    def __init__(self, cluster: Cluster, namespace: str, started: Callable[[str, Microservice], None]) -> None:
        super().__init__(cluster, namespace=namespace)
        self._fleet, self._started = cluster, started
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._processes = contextlib.ExitStack()
        self.servers: dict[str, Microservice] = {}

    def __exit__(self, *raised: object) -> None:
        with self._processes:
            super().__exit__(*raised)

    def prepare(self, deployment: dict[str, Any]) -> None:
        """Have its pods wait for their process."""
        deployment["spec"]["template"]["metadata"]["annotations"].setdefault(FAIL, HELD)

    def look(self) -> None:
        """Carry everything one step further, and start what pods wait for."""
        super().look()
        query = {"labelSelector": f"seldon-deployment-id,{_REVISION}"}
        for pod in self._fleet.request("GET", self._pods, query=query)["items"]:
            held = pod["metadata"].get("annotations", {}).get(FAIL) == HELD
            if held and pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                self._let_go(pod)

    def _let_go(self, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        revision = metadata["labels"][_REVISION]
        if revision not in self.servers:
            self.servers[revision] = self._start(revision, pod)
            self._started(revision, self.servers[revision])
        server = self.servers[revision]
        forward(self._fleet, pod, {_REST: server.port, _GRPC: server.grpc_port})
        eventually(lambda: self._reaches(metadata["namespace"], metadata["name"]), f"{metadata['name']} to be reached")
        change = {"metadata": {"annotations": {FAIL: None}}}
        # it was deleted meanwhile
        with contextlib.suppress(ApiException):
            self._fleet.request(
                "PATCH", f"{self._pods}/{metadata['name']}", change, kind="application/merge-patch+json"
            )

    def _start(self, revision: str, pod: Mapping[str, Any]) -> Microservice:
        (container,) = (one for one in pod["spec"]["containers"] if one["name"] != "seldon-container-engine")
        (initializer,) = pod["spec"]["initContainers"]
        told = {one["name"]: one.get("value", "") for one in container["env"]}
        parameters = {
            one["name"]: _KINDS[one["type"]](one["value"]) for one in json.loads(told["PREDICTIVE_UNIT_PARAMETERS"])
        }
        # the names of sockets below it must not be long
        folder = Path(self._processes.enter_context(tempfile.TemporaryDirectory(prefix="seldon-")))
        # in place of what the initializer fetches, it fetches it itself
        parameters["model_uri"] = initializer["args"][0]
        run, *options = container["args"]
        return self._processes.enter_context(
            serving(folder / "log", *options, run=run, parameters=parameters, variables=told)
        )

    def _reaches(self, namespace: str, pod: str) -> bool:
        # by a process of its own: the client's thread for a connection that is refused ends with an exception
        command = [sys.executable, "-W", "ignore", "-c", _ASK, str(self._fleet.kubeconfig), namespace, pod, str(_REST)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.startswith(b"HTTP/")
