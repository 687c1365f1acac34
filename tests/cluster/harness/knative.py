"""A stand-in for Knative Serving: carries its Services out with fake pods, and writes its statuses in its order.

Knative's controllers come as images only. This follows what they do to a Service: a Revision for each change of the
template, ready with its pod; traffic once it is; a Revision whose pod fails takes no traffic, and the one before keeps
it. There is no scaling and no network: see knative/specs, ``specs/serving/knative-api-specification-1.0.md``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

from kubernetes.client.rest import ApiException

from harness.cluster import Cluster
from harness.standin import StandIn

__all__ = ["Knative"]

_GROUP = "/apis/serving.knative.dev/v1"
_SERVICE = "serving.knative.dev/service"
_REVISION = "serving.knative.dev/revision"


class Knative(StandIn):
    """Runs as long as it is entered.

    Args:
        cluster: A cluster with Knative's CRDs and nodes.

    Attributes:
        history: Percent of the requests by revision, each time that a Service's traffic was changed.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("knative")
        self._cluster = cluster
        self.history: list[dict[str, int]] = []

    def __enter__(self) -> Self:
        # KServe reads its settings
        metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": metadata["namespace"]}})
        self._cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
        return super().__enter__()

    def look(self) -> None:
        """Carry every Knative Service one step further."""
        for service in self._cluster.request("GET", f"{_GROUP}/services")["items"]:
            # somebody else changed it meanwhile: next time
            with contextlib.suppress(_Conflict):
                self._reconcile(service)

    def _reconcile(self, service: dict[str, Any]) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        if "deletionTimestamp" in service["metadata"]:
            return
        status = copy.deepcopy(service.get("status") or {})
        generation = service["metadata"]["generation"]
        created = status.get("latestCreatedRevisionName")
        if created is None or self._template_of(namespace, created) != _template(service):
            created = f"{name}-{_number(created) + 1:05d}"
            self._make_revision(service, created)
            status["latestCreatedRevisionName"] = created
            status["conditions"] = _conditions(configurations="Unknown", routes=_routes(status))
            self._write(service, {**status, "observedGeneration": generation})
            return
        ready, why = self._revision_state(namespace, created)
        status["observedGeneration"] = generation
        if ready is None:
            status["conditions"] = _conditions(configurations="Unknown", routes=_routes(status))
        elif not ready:
            message = f'Revision "{created}" failed with message: {why}.'
            status["conditions"] = _conditions(configurations="False", routes=_routes(status), message=message)
        else:
            status["latestReadyRevisionName"] = created
            wanted = list(_traffic(service, created))
            # routes come after the configuration
            if status.get("traffic") == wanted:
                host = f"{name}.{namespace}.example.com"
                status["url"] = f"http://{host}"
                status["address"] = {"url": f"http://{name}.{namespace}.svc.cluster.local"}
                status["conditions"] = _conditions(configurations="True", routes="True")
            else:
                status["traffic"] = wanted
                self.history.append({entry["revisionName"]: entry["percent"] for entry in wanted})
                status["conditions"] = _conditions(configurations="True", routes="Unknown")
        self._write(service, status)
        if status.get("conditions", [{}])[0].get("status") == "True":
            self._scale_down(namespace, name, status["traffic"], created)

    def _template_of(self, namespace: str, revision: str) -> Any:
        found = self._cluster.get(f"{_GROUP}/namespaces/{namespace}/revisions/{revision}") or {}
        return found.get("metadata", {}).get("annotations", {}).get("test.longshore.dev/template")

    def _make_revision(self, service: Mapping[str, Any], name: str) -> None:
        """The Revision, and its pod."""
        metadata, template = service["metadata"], service["spec"]["template"]
        labels = {**template["metadata"].get("labels", {}), _SERVICE: metadata["name"]}
        owner = {"apiVersion": service["apiVersion"], "kind": "Service", "name": metadata["name"]}
        owners = [{**owner, "uid": metadata["uid"], "controller": True}]
        annotations = {**template["metadata"].get("annotations", {}), "test.longshore.dev/template": _template(service)}
        revision = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": owners,
            },
            "spec": template["spec"],
        }
        with contextlib.suppress(_Conflict):
            self._post(f"{_GROUP}/namespaces/{metadata['namespace']}/revisions", revision)
        known = {"containers", "volumes", "serviceAccountName", "nodeSelector", "tolerations", "initContainers"}
        pod = {
            "metadata": {
                "name": f"{name}-deployment",
                "labels": {**labels, _REVISION: name},
                "annotations": template["metadata"].get("annotations", {}),
                "ownerReferences": owners,
            },
            "spec": {field: value for field, value in template["spec"].items() if field in known},
        }
        for container in pod["spec"]["containers"]:
            # what Knative's webhook fills in
            container["name"] = container.get("name") or "user-container"
        with contextlib.suppress(_Conflict):
            self._post(f"/api/v1/namespaces/{metadata['namespace']}/pods", pod)

    def _revision_state(self, namespace: str, name: str) -> tuple[bool | None, str]:
        """Whether a Revision is ready, None as long as that is open; written into its status."""
        path = f"{_GROUP}/namespaces/{namespace}/revisions/{name}"
        revision = self._cluster.get(path)
        if revision is None:
            return None, ""
        pod = self._cluster.get(f"/api/v1/namespaces/{namespace}/pods/{name}-deployment")
        state, why = _pod_state(pod)
        before = (revision.get("status") or {}).get("conditions")
        if before and before[0]["status"] == "True":
            # what was ready once stays so
            return True, ""
        word = {True: "True", False: "False", None: "Unknown"}[state]
        condition = {"type": "Ready", "status": word, "lastTransitionTime": None}
        if state is False:
            condition |= {"reason": "ExitCode1", "message": why}
        if before != [condition]:
            status = {**(revision.get("status") or {}), "conditions": [condition]}
            self._put(path, {**revision, "status": status})
        return state, why

    def _scale_down(self, namespace: str, name: str, traffic: list[dict[str, Any]], created: str) -> None:
        """Take away the pods of revisions that get no requests."""
        serving = {entry["revisionName"] for entry in traffic} | {created}
        query = {"labelSelector": f"{_SERVICE}={name}"}
        for pod in self._cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods", query=query)["items"]:
            if pod["metadata"]["labels"].get(_REVISION) not in serving:
                with contextlib.suppress(ApiException):
                    self._cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")

    def _write(self, service: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        if status != service.get("status"):
            metadata = service["metadata"]
            path = f"{_GROUP}/namespaces/{metadata['namespace']}/services/{metadata['name']}"
            self._put(path, {**service, "status": status})

    def _put(self, path: str, manifest: Mapping[str, Any]) -> None:
        self._send("PUT", f"{path}/status", manifest)

    def _post(self, path: str, manifest: Mapping[str, Any]) -> None:
        self._send("POST", path, manifest)

    def _send(self, method: str, path: str, manifest: Mapping[str, Any]) -> None:
        try:
            self._cluster.request(method, path, manifest)
        except ApiException as error:
            if error.status in (404, 409):
                raise _Conflict(path) from error
            # nothing can be made in a namespace that is being deleted
            if error.status == 403 and b"being terminated" in (error.body or b""):
                raise _Conflict(path) from error
            raise


class _Conflict(Exception):
    """An object changed, went or came meanwhile."""


def _template(service: Mapping[str, Any]) -> str:
    return repr(service["spec"]["template"])


def _number(revision: str | None) -> int:
    return 0 if revision is None else int(revision.rpartition("-")[2])


def _routes(status: Mapping[str, Any]) -> str:
    """Routes stay ready on what is served already."""
    return "True" if status.get("traffic") else "Unknown"


def _conditions(*, configurations: str, routes: str, message: str = "") -> list[dict[str, Any]]:
    words = {configurations, routes}
    whole = "False" if "False" in words else "Unknown" if "Unknown" in words else "True"
    told = {"reason": "RevisionFailed", "message": message} if message else {}
    return [
        {"type": "Ready", "status": whole, **(told if whole == "False" else {})},
        {"type": "ConfigurationsReady", "status": configurations, **told},
        {"type": "RoutesReady", "status": routes},
    ]


def _traffic(service: Mapping[str, Any], newest: str) -> Iterator[dict[str, Any]]:
    for entry in service["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]:
        latest = bool(entry.get("latestRevision"))
        resolved = {
            "latestRevision": latest,
            "revisionName": newest if latest else entry["revisionName"],
            "percent": entry.get("percent", 0),
        }
        if "tag" in entry:
            metadata = service["metadata"]
            resolved["tag"] = entry["tag"]
            resolved["url"] = f"http://{entry['tag']}-{metadata['name']}.{metadata['namespace']}.example.com"
        yield resolved


def _pod_state(pod: Mapping[str, Any] | None) -> tuple[bool | None, str]:
    status = (pod or {}).get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in ("CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError"):
            ended = (container.get("lastState") or {}).get("terminated") or {}
            return False, f"Container failed with: {ended.get('message') or waiting.get('message')}"
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return (True if ready else None), ""
