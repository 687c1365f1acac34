"""A stand-in for Seldon Core 1's operator: makes of SeldonDeployments what it makes, and says of them what it says.

The operator comes as an image only. This follows what v1.18.2 does: Services first, then autoscalers and Deployments;
requests are shared out anew, and what is not wanted any more goes, only once all Deployments are available. The state
is that of the last round, no generation is noted, and any error is called Failed until the next round. What its webhook
would refuse is refused here at the end of the test.

The pods are those of the cluster's nodes; there is no executor in them.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes.client.rest import ApiException

from harness.cluster import Cluster
from harness.standin import StandIn

__all__ = ["SeldonOperator"]

_GROUP = "/apis/machinelearning.seldon.io/v1"
_ID, _APP, _APP_SERVICE = "seldon-deployment-id", "seldon-app", "seldon-app-svc"
_LAST = "seldon.io/last-applied"
_PREPACKAGED = {
    "SKLEARN_SERVER",
    "XGBOOST_SERVER",
    "MLFLOW_SERVER",
    "TENSORFLOW_SERVER",
    "TRITON_SERVER",
    "HUGGINGFACE_SERVER",
}
_NO_TENSORFLOW = {"SKLEARN_SERVER", "XGBOOST_SERVER", "MLFLOW_SERVER", "HUGGINGFACE_SERVER"}
_ENGINE = {
    "name": "seldon-container-engine",
    "image": "seldonio/seldon-core-executor:1.18.2",
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
}


class SeldonOperator(StandIn):
    """Runs as long as it is entered.

    Args:
        cluster: A cluster with Seldon's CRD and nodes.
        istio: Whether it was installed for Istio, whose VirtualServices the cluster then has.
        namespace: The only one it works in; None works in all.

    Attributes:
        errors: What the next rounds run into, by name of the SeldonDeployment; each is said once.
        broken: What every round runs into.
        refused: What its webhook would have refused.
    """

    def __init__(self, cluster: Cluster, *, istio: bool = False, namespace: str | None = None) -> None:
        super().__init__("seldon-operator")
        self._cluster, self._istio = cluster, istio
        where = _GROUP if namespace is None else f"{_GROUP}/namespaces/{namespace}"
        self._all = f"{where}/seldondeployments"
        self.errors: dict[str, list[str]] = {}
        self.broken: dict[str, str] = {}
        self.refused: list[str] = []

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        if self.refused:
            raise AssertionError(f"Seldon's webhook would have refused: {self.refused}")

    def look(self) -> None:
        """Carry every SeldonDeployment one step further."""
        for found in self._cluster.request("GET", self._all)["items"]:
            if "deletionTimestamp" not in found["metadata"]:
                self.refused += [one for one in _refusals(found["spec"]) if one not in self.refused]
                # somebody else changed it meanwhile: next time
                with contextlib.suppress(_Conflict):
                    self._reconcile(found)

    def prepare(self, deployment: dict[str, Any]) -> None:
        """Change what a Deployment is made of, for tests."""

    def _reconcile(self, found: dict[str, Any]) -> None:
        status = copy.deepcopy(found.get("status") or {})
        try:
            ready, progressing = self._carry_out(found, status)
        except _Error as error:
            status |= {"state": "Failed", "description": str(error)}
        else:
            state = "Available" if ready else "Creating" if progressing else "Failed"
            status["state"] = state
            status["description"] = (
                "Deployment is no longer progressing and not available." if state == "Failed" else ""
            )
        if status != (found.get("status") or {}):
            self._send("PUT", f"{self._cluster.path(found)}/status", {**found, "status": status})

    def _carry_out(self, found: Mapping[str, Any], status: dict[str, Any]) -> tuple[bool, bool]:
        """One round; whether all is ready, and whether what is not may still become so."""
        name = found["metadata"]["name"]
        if self.errors.get(name):
            raise _Error(self.errors[name].pop(0))
        if name in self.broken:
            raise _Error(self.broken[name])
        made = _Made(found)
        for deployment in made.deployments:
            self.prepare(deployment)
        services = [self._service(found, one, status) for one in made.services]
        for scaler in made.autoscalers:
            self._keep(found, scaler)
        states = [self._deployment(found, one, made, status) for one in made.deployments]
        ready = all(one for one, _ in states)
        if ready:
            for service in made.services:
                self._service(found, service, status)
            status["address"] = {"url": f"http://{made.services[0]['metadata']['name']}.{made.namespace}:8000"}
            if self._istio:
                self._keep(found, made.virtual_service)
            self._clean_up(made, status)
        return ready and all(services), all(progressing for _, progressing in states)

    def _service(self, found: Mapping[str, Any], service: dict[str, Any], status: dict[str, Any]) -> bool:
        there = self._get(service)
        if there is None:
            self._create(found, service)
            return False
        if there["spec"]["selector"] != service["spec"]["selector"]:
            self._delete(service)
            return False
        name = service["metadata"]["name"]
        status.setdefault("serviceStatus", {}).setdefault(name, {"svcName": name})
        return True

    def _keep(self, found: Mapping[str, Any], wanted: dict[str, Any]) -> None:
        there = self._get(wanted)
        if there is None:
            self._create(found, wanted)
        elif not _covers(there["spec"], wanted["spec"]):
            self._send("PUT", self._cluster.path(wanted), {**there, "spec": wanted["spec"]})

    def _deployment(
        self, found: Mapping[str, Any], wanted: dict[str, Any], made: _Made, status: dict[str, Any]
    ) -> tuple[bool, bool]:
        name, there = wanted["metadata"]["name"], self._get(wanted)
        scaled = any(one["metadata"]["name"] == name for one in made.autoscalers)
        wanted["metadata"].setdefault("annotations", {})[_LAST] = json.dumps(wanted["spec"], sort_keys=True)
        if there is None:
            self._create(found, wanted)
            return False, True
        if not scaled:
            # an autoscaler that is not wanted any more goes
            self._delete({**wanted, "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"})
        if there["spec"]["selector"] != wanted["spec"]["selector"]:
            self._delete(wanted)
            return False, True
        if there["metadata"].get("annotations", {}).get(_LAST) != wanted["metadata"]["annotations"][_LAST]:
            spec = {**wanted["spec"], "replicas": wanted["spec"].get("replicas", there["spec"]["replicas"])}
            metadata = {**there["metadata"], **{key: wanted["metadata"][key] for key in ("labels", "annotations")}}
            before = there["spec"]["template"]["spec"]
            there = self._send("PUT", self._cluster.path(wanted), {**there, "metadata": metadata, "spec": spec})
            if not _covers(before, wanted["spec"]["template"]["spec"]):
                return False, True
            # of changes to labels alone it goes on with the status of before
        is_now = there.get("status") or {}
        seen = {key: is_now.get(key, 0) for key in ("replicas", "availableReplicas")}
        status.setdefault("deploymentStatus", {})[name] = seen
        if is_now.get("readyReplicas", 0) and not is_now.get("unavailableReplicas"):
            return True, True
        conditions = {one["type"]: one["status"] for one in is_now.get("conditions") or ()}
        return False, not (conditions.get("Progressing") == conditions.get("Available") == "False")

    def _clean_up(self, made: _Made, status: dict[str, Any]) -> None:
        """Take away what is not wanted any more, as far as the status knows of it: Deployments, and then Services."""
        deployments = {one["metadata"]["name"] for one in made.deployments}
        left = [name for name in status.get("deploymentStatus") or {} if name not in deployments]
        for name in left:
            old = {"apiVersion": "apps/v1", "kind": "Deployment"}
            old["metadata"] = {"name": name, "namespace": made.namespace}  # type: ignore[assignment]
            if self._get(old) is None:
                del status["deploymentStatus"][name]
                continue
            self._delete(old)
            self._delete({**old, "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"})
        if left:
            return
        services = {one["metadata"]["name"] for one in made.services}
        query = {"labelSelector": f"{_ID}={made.name}"}
        for service in self._cluster.request("GET", f"/api/v1/namespaces/{made.namespace}/services", query=query)[
            "items"
        ]:
            if service["metadata"]["name"] not in services:
                self._delete({**service, "apiVersion": "v1", "kind": "Service"})
                status.get("serviceStatus", {}).pop(service["metadata"]["name"], None)

    def _get(self, manifest: Mapping[str, Any]) -> Any:
        return self._cluster.get(self._cluster.path(manifest))

    def _create(self, found: Mapping[str, Any], manifest: dict[str, Any]) -> None:
        owner = {key: found[key] for key in ("apiVersion", "kind")}
        metadata = found["metadata"]
        owner |= {"name": metadata["name"], "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}
        manifest = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}
        self._send("POST", self._cluster.path(manifest).rpartition("/")[0], manifest)

    def _delete(self, manifest: Mapping[str, Any]) -> None:
        with contextlib.suppress(_Conflict):
            self._send("DELETE", self._cluster.path(manifest), {"propagationPolicy": "Foreground"})

    def _send(self, method: str, path: str, manifest: Mapping[str, Any]) -> Any:
        try:
            return self._cluster.request(method, path, manifest)
        except ApiException as error:
            # nothing can be made in a namespace that is being deleted
            if error.status in (404, 409) or (error.status == 403 and b"being terminated" in (error.body or b"")):
                raise _Conflict(path) from error
            raise _Error(json.loads(error.body)["message"]) from error


class _Conflict(Exception):
    """An object changed, went or came meanwhile."""


class _Error(Exception):
    """What a round ran into."""


class _Made:
    """What is to be made of a SeldonDeployment."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.name: str = found["metadata"]["name"]
        self.namespace: str = found["metadata"]["namespace"]
        self.services: list[dict[str, Any]] = []
        self.deployments: list[dict[str, Any]] = []
        self.autoscalers: list[dict[str, Any]] = []
        self.spec = _numbered(found["spec"])
        for predictor in self.spec["predictors"]:
            self._predictor(predictor)

    def _predictor(self, predictor: Mapping[str, Any]) -> None:
        key = _short(f"{self.name}-{predictor['name']}")
        for index, component in enumerate(predictor.get("componentSpecs") or ()):
            pod = copy.deepcopy(component["spec"])
            names = [one["name"] for one in pod["containers"]]
            name = _short(f"{self.name}-{predictor['name']}-{index}-{'-'.join(names)}")
            deployment = self._deployment(name, predictor, pod)
            labels = {}
            for container in pod["containers"]:
                service = _short(f"{key}-{container['name']}")
                labels[f"{_APP_SERVICE}-{container['name']}"] = service
                container.setdefault("image", f"seldonio/{container['name']}:1.18.2")
                container.setdefault("env", []).extend(self._told(container["name"], predictor))
                ports = [(one["name"], one["containerPort"]) for one in container.get("ports", ())][:2]
                self.services.append(self._service(service, labels, ports))
            pod["initContainers"] = [
                _initializer(node)
                for node in _nodes(predictor["graph"])
                if node.get("modelUri") and node["name"] in names
            ]
            if index == 0:
                pod["containers"].append(_engine(predictor))
                labels[_APP] = key
            spec = deployment["spec"]
            spec["selector"]["matchLabels"] |= labels
            spec["template"]["metadata"]["labels"] |= labels
            if "hpaSpec" in component:
                self.autoscalers.append(self._autoscaler(deployment, component["hpaSpec"]))
            elif "replicas" in predictor:
                spec["replicas"] = predictor["replicas"]
            self.deployments.append(deployment)
        self.services.append(self._service(key, {_APP: key}, [("http", 8000), ("grpc", 5001)]))
        if predictor.get("explainer", {}).get("type"):
            name = _short(f"{self.name}-{predictor['name']}-explainer")
            container = {"image": "seldonio/alibiexplainer:1.18.2", **predictor["explainer"].get("containerSpec", {})}
            container.setdefault("name", name)
            self.deployments.append(self._deployment(name, predictor, {"containers": [container]}))
            self.services.append(self._service(name, {_APP: name}, [("http", 9000)]))

    def _told(self, name: str, predictor: Mapping[str, Any]) -> list[dict[str, str]]:
        """What a node's container is told in its environment."""
        node = next((one for one in _nodes(predictor["graph"]) if one["name"] == name), {})
        told = {
            "PREDICTIVE_UNIT_ID": name,
            "PREDICTIVE_UNIT_PARAMETERS": json.dumps(node.get("parameters", [])),
            "PREDICTOR_ID": predictor["name"],
            "PREDICTOR_LABELS": json.dumps(predictor.get("labels", {})),
            "SELDON_DEPLOYMENT_ID": self.name,
        }
        return [{"name": key, "value": value} for key, value in told.items()]

    def _deployment(self, name: str, predictor: Mapping[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
        labels = {_ID: self.name, "app": name, "fluentd": "true", **predictor.get("labels", {})}
        labels.setdefault("version", predictor["name"])
        if predictor.get("shadow"):
            labels["seldon.io/shadow"] = "true"
        annotations = {**(self.spec.get("annotations") or {}), **(predictor.get("annotations") or {})}
        annotations_of_pod = {"prometheus.io/scrape": "true", "prometheus.io/path": "/prometheus", **annotations}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "annotations": annotations,
                "labels": {**labels, "app.kubernetes.io/managed-by": "seldon-core"},
            },
            "spec": {
                "selector": {"matchLabels": {_ID: self.name}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels, "annotations": annotations_of_pod}, "spec": pod},
            },
        }

    def _service(self, name: str, selector: Mapping[str, str], ports: list[tuple[str, int]]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self.namespace, "labels": {_ID: self.name}},
            "spec": {
                "selector": {key: value for key, value in selector.items() if value == name},
                "ports": [{"name": one, "port": number, "targetPort": number} for one, number in ports],
            },
        }

    def _autoscaler(self, deployment: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        metrics = []
        for metric in asked.get("metrics", ()):
            resource = metric["resource"]
            target = {"type": "Utilization", "averageUtilization": resource["targetAverageUtilization"]}
            metrics.append({"type": "Resource", "resource": {"name": resource["name"], "target": target}})
        name = deployment["metadata"]["name"]
        return {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": self.namespace, "labels": {_ID: self.name}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": asked["minReplicas"],
                "maxReplicas": asked["maxReplicas"],
                "metrics": metrics,
            },
        }

    @property
    def virtual_service(self) -> dict[str, Any]:
        """How requests are shared out."""

        def destination(predictor: Mapping[str, Any]) -> dict[str, Any]:
            name = predictor["name"]
            host = f"{_short(f'{self.name}-{name}')}.{self.namespace}.svc.cluster.local"
            return {"host": host, "subset": name, "port": {"number": 8000}}

        rule: dict[str, Any] = {"match": [{"uri": {"prefix": f"/seldon/{self.namespace}/{self.name}/"}}]}
        rule |= {"rewrite": {"uri": "/"}, "route": []}
        for predictor in self.spec["predictors"]:
            traffic = predictor.get("traffic", 0)
            if predictor.get("shadow"):
                rule["mirror"] = destination(predictor)
                if traffic:
                    rule["mirrorPercentage"] = {"value": traffic}
            else:
                rule["route"].append({"destination": destination(predictor), "weight": traffic})
        return {
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "VirtualService",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"hosts": ["*"], "gateways": ["istio-system/seldon-gateway"], "http": [rule]},
        }


def _short(name: str) -> str:
    return name if len(name) <= 63 else f"seldon-{hashlib.md5(name.encode()).hexdigest()}"


def _engine(predictor: Mapping[str, Any]) -> dict[str, Any]:
    """The executor, which is told its predictor."""
    told = {key: value for key, value in predictor.items() if key not in ("traffic", "replicas", "explainer")}
    return {**_ENGINE, "env": [{"name": "ENGINE_PREDICTOR", "value": json.dumps(told, sort_keys=True)}]}


def _initializer(node: Mapping[str, Any]) -> dict[str, Any]:
    """What fetches a node's model."""
    secret = node.get("envSecretRefName")
    return {
        "name": f"{node['name']}-model-initializer",
        "image": "seldonio/rclone-storage-initializer:1.18.2",
        "args": [node["modelUri"], "/mnt/models"],
        "envFrom": [] if secret is None else [{"secretRef": {"name": secret}}],
    }


def _numbered(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the ports that containers do not name: they are counted on over all predictors."""
    spec = copy.deepcopy(dict(spec))
    known: dict[str, int] = {}
    metrics = 0
    for predictor in spec["predictors"]:
        for component in predictor.get("componentSpecs") or ():
            for container in component["spec"]["containers"]:
                place = known.setdefault(container["name"], len(known))
                ports = container.setdefault("ports", [])
                named = {port.get("name") for port in ports}
                for name, first in (("http", 9000 + place), ("grpc", 9500 + place), ("metrics", 6000 + metrics)):
                    if name not in named:
                        ports.append({"name": name, "containerPort": first, "protocol": "TCP"})
                metrics += "metrics" not in named
    return spec


def _covers(has: Any, wanted: Any) -> bool:
    """Whether an object is as wanted, as far as something is wanted of it."""
    if isinstance(wanted, Mapping):
        return isinstance(has, Mapping) and all(_covers(has.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(has, list)
            and len(has) == len(wanted)
            and all(_covers(one, other) for one, other in zip(has, wanted, strict=True))
        )
    return bool(has == wanted)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("children") or ():
        yield from _nodes(child)


def _refusals(spec: Mapping[str, Any]) -> Iterator[str]:
    """What the operator's webhook refuses."""
    predictors = spec["predictors"]
    names = [one["name"] for one in predictors]
    if len(set(names)) < len(names):
        yield f"Duplicate predictor name: {names}"
    shadows = [one for one in predictors if one.get("shadow")]
    if len(shadows) > 1:
        yield "Multiple shadows are not allowed"
    if len(predictors) == len(shadows):
        yield "Shadow can not exist as only predictor"
    total = sum(one.get("traffic", 0) for one in predictors if not one.get("shadow"))
    if len(predictors) - len(shadows) > 1 and total != 100:
        yield f"Traffic must sum to 100 for multiple predictors: {total}"
    if len(predictors) == 1 and total not in (0, 100):
        yield f"Traffic must sum be 100 for a single predictor when set: {total}"
    for predictor in predictors:
        pods = predictor.get("componentSpecs") or ()
        containers = {one["name"] for component in pods for one in component["spec"]["containers"]}
        for node in _nodes(predictor["graph"]):
            implementation = node.get("implementation")
            if implementation is None and node["name"] not in containers:
                yield f"Can't find container for Predictive Unit {node['name']}"
            if implementation in _PREPACKAGED and not node.get("modelUri") and implementation != "HUGGINGFACE_SERVER":
                yield f"Predictive unit modelUri required when using standalone servers: {node['name']}"
            if spec.get("protocol") == "tensorflow" and implementation in _NO_TENSORFLOW:
                yield f"Prepackaged server does not handle tensorflow protocol {implementation}"
