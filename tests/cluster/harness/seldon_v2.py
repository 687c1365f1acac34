"""A stand-in for Seldon Core 2: its operator, its scheduler and its routes, as far as statuses tell of them.

Seldon's own are not free to use in production, and come as images. This writes what they write, in their order:

- a condition is left as it is until the scheduler says something new, so that right after a change the status is of
  before; ``observedGeneration`` is never written;
- a Model is scheduled to a Server that offers all it requires and has as many replicas, loaded, and available; where no
  Server fits, it is ScheduleFailed until one does;
- an Experiment that the scheduler refuses keeps its conditions, and gets one that is none of its own (``ModelReady``);
  one that it takes is first not ready, then ready;
- the route of an Experiment has the candidates before the first one that cannot answer, and is gone without any.

Annotations of a Model say what becomes of it: ``test.longshore.dev/ready-delay: 2s``, and ``test.longshore.dev/fail:
load`` or ``lost``, which loads and then goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes.client.rest import ApiException

from harness.cluster import Cluster
from harness.fleet import FAIL, READY_DELAY
from harness.standin import StandIn

__all__ = ["BROKEN", "SeldonV2"]

BROKEN = "rclone: failed to sync/copy s3://models/iris: no such bucket"
"""What a Model says that cannot be loaded."""

_GROUP = "/apis/mlops.seldon.io/v1alpha1"
_VERSION = "mlops.seldon.io/v1alpha1"
_CAPABILITIES = {"mlserver": {"mlserver", "python", "sklearn", "xgboost"}, "triton": {"triton", "onnx", "python"}}
_NO_SERVER = "Failed to schedule model as no matching servers are available"
_NO_REPLICAS = "Failed to schedule model as no matching server had enough suitable replicas"
_REFUSED = "rpc error: code = FailedPrecondition desc = "
_KINDS = {"Model": "models", "Experiment": "experiments", "Pipeline": "pipelines", "Server": "servers"}
_CONDITIONS = {
    "Model": ("ModelReady",),
    "Experiment": ("ExperimentReady", "CandidatesReady", "MirrorReady"),
    "Pipeline": ("PipelineReady", "PipelineGwReady", "ModelsReady"),
    "Server": ("StatefulSetOrDeploymentReady",),
}
_SERVER_STATUS = {"loadedModels": 0, "replicas": 0, "selector": ""}

Key = tuple[str, str]


@dataclass
class Route:
    """Where the requests of an Experiment go.

    Args:
        weights: By name of the candidate.
        mirror: Who gets copies, and of how many percent.
    """

    weights: dict[str, int]
    mirror: tuple[str, int] | None = None


@dataclass
class _Loading:
    """A Model as the scheduler has it."""

    uid: str
    replicas: int
    since: float
    available: bool = False
    was_available: bool = False


@dataclass
class _Taken:
    """An Experiment as the scheduler has it."""

    generation: int
    spec: dict[str, Any]
    active: bool = False
    seen: float = field(default_factory=time.monotonic)


class SeldonV2(StandIn):
    """Runs as long as it is entered.

    Args:
        cluster: A cluster with Seldon's CRDs and fake nodes.
        lag: Seconds until an Experiment that was changed is looked at.

    Attributes:
        routes: The routes that there are now, by namespace and name of the Experiment.
        history: What each route was, one after the other; None where it was gone.
        away: Whether the operator is.
    """

    def __init__(self, cluster: Cluster, lag: float = 0.0) -> None:
        super().__init__("seldon-v2")
        self._cluster, self.lag = cluster, lag
        self._up: dict[Key, int] = {}
        self._models: dict[Key, _Loading] = {}
        self._experiments: dict[Key, _Taken] = {}
        self._changed: dict[Key, tuple[int, float]] = {}
        self.routes: dict[Key, Route] = {}
        self.history: dict[Key, list[Route | None]] = {}
        self.away = False

    def look(self) -> None:
        """Carry everything one step further."""
        if self.away:
            return
        found = {kind: self._list(kind) for kind in _KINDS}
        for server in found["Server"]:
            self._server(server)
        for model in found["Model"]:
            with contextlib.suppress(_Changed):
                self._model(model, found["Server"])
        for pipeline in found["Pipeline"]:
            with contextlib.suppress(_Changed):
                self._pipeline(pipeline)
        for experiment in found["Experiment"]:
            with contextlib.suppress(_Changed):
                self._experiment(experiment, found["Pipeline"])

    def _list(self, kind: str) -> list[dict[str, Any]]:
        items = self._cluster.request("GET", f"{_GROUP}/{_KINDS[kind]}")["items"]
        return [{"apiVersion": _VERSION, "kind": kind, **item} for item in items]

    # servers

    def _server(self, server: dict[str, Any]) -> None:
        """Make its pods as the operator does, and tell whether they are ready."""
        metadata, spec = server["metadata"], server["spec"]
        if "deletionTimestamp" in metadata or self._up.get(_key(server)) == metadata["generation"]:
            return
        if spec["serverConfig"] not in _CAPABILITIES:
            why = f'ServerConfig.mlops.seldon.io "{spec["serverConfig"]}" not found'
            with contextlib.suppress(_Changed):
                self._say(server, {"StatefulSetOrDeploymentReady": (False, why, "")}, **_SERVER_STATUS)
            return
        labels = {**metadata.get("labels", {}), "seldon-server-name": metadata["name"]}
        owner = {"apiVersion": _VERSION, "kind": "Server", "name": metadata["name"], "uid": metadata["uid"]}
        own = [one.get("image") for one in (spec.get("podSpec") or {}).get("containers") or ()]
        container = {"name": spec["serverConfig"], "image": next(filter(None, own), "server:1"), "resources": {}}
        template = {
            "metadata": {"labels": labels, "annotations": _plain(metadata)},
            "spec": {"containers": [container]},
        }
        replicas = _replicas(spec)
        wanted = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"seldon-server-name": metadata["name"]}},
                "serviceName": metadata["name"],
                "podManagementPolicy": "Parallel",
                "template": template,
            },
        }
        with contextlib.suppress(_Changed):
            with _gone():
                made = self._cluster.apply(wanted)
            ready = (made.get("status") or {}).get("readyReplicas", 0) >= replicas
            word = "StatefulSet replicas matches desired replicas" if ready else "StatefulSet replicas does not match"
            status = {**_SERVER_STATUS, "replicas": replicas}
            self._say(server, {"StatefulSetOrDeploymentReady": (ready, word, "")}, **status)
            if ready:
                # one that runs is not looked at again: tests leave theirs behind
                self._up[_key(server)] = metadata["generation"]

    # models

    def _model(self, model: dict[str, Any], servers: Sequence[dict[str, Any]]) -> None:
        key = _key(model)
        if "deletionTimestamp" in model["metadata"]:
            self._models.pop(key, None)
            self._release(model)
            return
        self._hold(model)
        spec, annotations = model["spec"], _plain(model["metadata"])
        replicas = _replicas(spec)
        known = self._models.get(key)
        if known is None or known.uid != model["metadata"]["uid"]:
            known = self._models[key] = _Loading(model["metadata"]["uid"], 0, time.monotonic())
        why = _unschedulable(spec, [one for one in servers if one["metadata"]["namespace"] == key[0]])
        if why:
            known.available = known.replicas > 0
            self._say(model, {"ModelReady": (False, why, "ScheduleFailed")}, availableReplicas=known.replicas)
            return
        if annotations.get(FAIL) == "load":
            self._say(model, {"ModelReady": (False, BROKEN, "ModelFailed")}, availableReplicas=0)
            return
        if annotations.get(FAIL) == "lost" and known.was_available:
            known.available, known.replicas = False, 0
            self._say(model, {"ModelReady": (False, "replica lost", "ModelFailed")}, availableReplicas=0)
            return
        if time.monotonic() - known.since < float(annotations.get(READY_DELAY, "0s").rstrip("s")):
            self._say(model, {"ModelReady": (False, "", "ModelProgressing")}, availableReplicas=known.replicas)
            return
        if known.replicas not in (0, replicas):
            # one is loaded after the other
            known.replicas, known.since = replicas, time.monotonic()
            self._say(model, {"ModelReady": (False, "", "ModelProgressing")}, availableReplicas=1)
            return
        known.replicas, known.available, known.was_available = replicas, True, True
        self._say(model, {"ModelReady": (True, "", "ModelAvailable")}, availableReplicas=replicas)

    def _answers(self, namespace: str, name: str) -> bool:
        known = self._models.get((namespace, name))
        return known is not None and known.available

    # pipelines

    def _pipeline(self, pipeline: dict[str, Any]) -> None:
        namespace = pipeline["metadata"]["namespace"]
        if "deletionTimestamp" in pipeline["metadata"]:
            self._release(pipeline)
            return
        self._hold(pipeline)
        names = [step["name"] for step in pipeline["spec"]["steps"]]
        if pipeline["metadata"]["name"] in names:
            why = f"{_REFUSED}pipeline {pipeline['metadata']['name']} must not have a step name with the same name"
            self._say(pipeline, {"PipelineReady": (False, "PipelineFailed", why)})
            return
        if not (pipeline.get("status") or {}).get("conditions"):
            words = (False, "PipelineCreating", "Empty reason | Empty reason")
            self._say(pipeline, {"PipelineReady": words, "PipelineGwReady": words, "ModelsReady": (False, "", "")})
            return
        ready = all(self._answers(namespace, name) for name in names)
        words = (True, "PipelineReady", "created pipeline | Empty reason")
        models = "Models all available" if ready else "Some models are not available"
        self._say(pipeline, {"PipelineReady": words, "PipelineGwReady": words, "ModelsReady": (ready, "", models)})

    # experiments

    def _experiment(self, experiment: dict[str, Any], pipelines: Sequence[dict[str, Any]]) -> None:
        key, metadata = _key(experiment), experiment["metadata"]
        if "deletionTimestamp" in metadata:
            if self._experiments.pop(key, None) is not None:
                self._lead(key, None)
            self._release(experiment)
            return
        self._hold(experiment)
        generation, first = self._changed.get(key, (0, 0.0))
        if generation != metadata["generation"]:
            generation, first = self._changed[key] = metadata["generation"], time.monotonic()
        taken = self._experiments.get(key)
        if (taken is None or taken.generation != generation) and time.monotonic() - first < self.lag:
            return
        if taken is None or taken.generation != generation:
            why = self._refusal(key, experiment["spec"])
            if why:
                # a condition that is none of an Experiment's; those of before stay
                self._say(experiment, {"ModelReady": (False, f"{_REFUSED}{why}", "")})
                return
            taken = self._experiments[key] = _Taken(generation, experiment["spec"])
        answering = {name: self._candidate(key[0], name, taken.spec, pipelines) for name in _asked(taken.spec)}
        self._route(key, taken, answering)
        mirror = (taken.spec.get("mirror") or {}).get("name")
        candidates = all(ready for name, ready in answering.items() if name != mirror)
        told = (taken.active, "experiment active" if taken.active else "", "")
        self._say(
            experiment,
            {
                "ExperimentReady": told,
                "CandidatesReady": (candidates, "Candidates ready" if candidates else "Candidates not ready", ""),
                "MirrorReady": (mirror is None or answering[mirror], "Mirror ready", ""),
            },
        )
        # seen first as not active, and as active the next time
        taken.active = all(answering.values())

    def _candidate(self, namespace: str, name: str, spec: Mapping[str, Any], pipelines: Sequence[Any]) -> bool:
        if spec.get("resourceType", "model") == "model":
            return self._answers(namespace, name)
        found = next((one for one in pipelines if _key(one) == (namespace, name)), None)
        return found is not None and _is_true(found, "Ready")

    def _route(self, key: Key, taken: _Taken, answering: Mapping[str, bool]) -> None:
        weights: dict[str, int] = {}
        for one in taken.spec["candidates"]:
            if not answering[one["name"]]:
                self._lead(key, Route(weights) if weights else None)
                return
            weights[one["name"]] = one["weight"]
        mirror = taken.spec.get("mirror")
        copies = (mirror["name"], mirror["percent"]) if mirror and answering[mirror["name"]] else None
        self._lead(key, Route(weights, copies))

    def _lead(self, key: Key, route: Route | None) -> None:
        before = self.history.setdefault(key, [])
        if before and before[-1] == route:
            return
        if before or route is not None:
            before.append(route)
        if route is None:
            self.routes.pop(key, None)
        else:
            self.routes[key] = route

    def _refusal(self, key: Key, spec: Mapping[str, Any]) -> str | None:
        names, default = _asked(spec), spec.get("default")
        if default is not None:
            if default not in [one["name"] for one in spec["candidates"]]:
                return f"default model/pipeline {default} not found in experiment {key[1]} candidates"
            for other, taken in self._experiments.items():
                if other != key and other[0] == key[0] and taken.spec.get("default") == default:
                    return f"Resource {default} already in experiment {other[1]} as a baseline"
        twice = next((name for name in names if names.count(name) > 1), None)
        return (
            None if twice is None else f"each candidate and mirror must be unique but found resource {twice} duplicated"
        )

    # what the operator does to every object

    def _hold(self, manifest: dict[str, Any]) -> None:
        """Put the operator's finalizer on."""
        name = f"seldon.{manifest['kind'].lower()}.finalizer"
        metadata = manifest["metadata"]
        if name not in (metadata.get("finalizers") or ()):
            metadata["finalizers"] = [*(metadata.get("finalizers") or ()), name]
            manifest["metadata"] = self._put(manifest, "")["metadata"]

    def _release(self, manifest: dict[str, Any]) -> None:
        name = f"seldon.{manifest['kind'].lower()}.finalizer"
        metadata = manifest["metadata"]
        left = [one for one in metadata.get("finalizers") or () if one != name]
        if left != (metadata.get("finalizers") or []):
            metadata["finalizers"] = left
            self._put(manifest, "")

    def _say(self, manifest: dict[str, Any], words: Mapping[str, tuple[bool, str, str]], **status: Any) -> None:
        """Write conditions, each given as whether, reason and message; those that say the same stay as they are.

        A Model's message is the state, as everything that Seldon 2.3 and later write.
        """
        before = manifest.get("status") or {}
        conditions = {one["type"]: one for one in before.get("conditions") or ()}
        for kind, (ready, reason, message) in words.items():
            _set(conditions, kind, ready, reason, message)
        living = _CONDITIONS[manifest["kind"]]
        if all(kind in conditions for kind in living):
            unready = next((conditions[kind] for kind in living if conditions[kind]["status"] != "True"), None)
            told = unready or {"reason": "", "message": ""}
            _set(conditions, "Ready", unready is None, told.get("reason", ""), told.get("message", ""))
        after = {**before, **status, "conditions": list(conditions.values())}
        if after != before:
            manifest["status"] = self._put({**manifest, "status": after}, "/status")["status"]

    def _put(self, manifest: Mapping[str, Any], what: str) -> Any:
        with _gone():
            metadata = manifest["metadata"]
            path = f"{_GROUP}/namespaces/{metadata['namespace']}/{_KINDS[manifest['kind']]}/{metadata['name']}{what}"
            return self._cluster.request("PUT", path, manifest)


class _Changed(Exception):
    """Somebody else changed an object or took it away meanwhile: next time."""


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status in (404, 409) or (error.status == 403 and b"being terminated" in (error.body or b"")):
            raise _Changed from error
        raise


def _set(conditions: dict[str, Any], kind: str, ready: bool, reason: str, message: str) -> None:
    told = {"type": kind, "status": "True" if ready else "False", "reason": reason, "message": message}
    before = conditions.get(kind)
    if before is None or any(before.get(name, "") != value for name, value in told.items()):
        moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        conditions[kind] = {**told, "lastTransitionTime": moment}


def _key(manifest: Mapping[str, Any]) -> Key:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _plain(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The annotations that tests set."""
    annotations = metadata.get("annotations") or {}
    return {key: value for key, value in annotations.items() if key.startswith("test.longshore.dev/")}


def _replicas(spec: Mapping[str, Any]) -> int:
    replicas: int = spec.get("replicas", spec.get("minReplicas", 1))
    return replicas


def _asked(spec: Mapping[str, Any]) -> list[str]:
    mirror = [spec["mirror"]["name"]] if spec.get("mirror") else []
    return [*(one["name"] for one in spec["candidates"]), *mirror]


def _unschedulable(spec: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]) -> str | None:
    fitting = []
    for server in servers:
        offered = _CAPABILITIES.get(server["spec"]["serverConfig"], set()) | set(
            server["spec"].get("extraCapabilities") or ()
        )
        named = spec.get("server") in (None, server["metadata"]["name"])
        if named and offered >= set(spec.get("requirements") or ()) and _is_true(server, "Ready"):
            fitting.append(_replicas(server["spec"]))
    if not fitting:
        return _NO_SERVER
    return None if max(fitting) >= _replicas(spec) else _NO_REPLICAS


def _is_true(manifest: Mapping[str, Any], kind: str) -> bool:
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)
