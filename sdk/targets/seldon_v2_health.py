"""Reading what Seldon Core 2 says of its objects: pure functions on them.

Its operator never writes ``observedGeneration`` and leaves a condition as it is until its scheduler says something new.
So what a revision is judged by is made for it under a name of its own; of the Experiment, which is changed in place, a
status counts only once something was written after the change (:data:`~longshore.targets.base.UNSEEN_ANNOTATION`).

Seldon 2.3 and later put the state of a Model, such as ``ScheduleFailed``, into the condition's message and their own
words into its reason; earlier ones have it the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.spec import Health, HealthState
from longshore.targets.base import UNSEEN_ANNOTATION, Manifest
from longshore.targets.workload import pod_health

__all__ = ["CAPABILITIES", "offered", "seldon_v2_health"]

CAPABILITIES: Final[Mapping[str, tuple[str, ...]]] = {
    "mlserver": (
        "mlserver",
        "alibi-detect",
        "alibi-explain",
        "huggingface",
        "lightgbm",
        "mlflow",
        "python",
        "sklearn",
        "spark-mlib",
        "xgboost",
    ),
    "triton": ("triton", "dali", "fil", "onnx", "openvino", "python", "pytorch", "tensorflow", "tensorrt"),
}
"""What Servers after the ServerConfigs that Seldon brings offer."""

_STATE: Final = re.compile(r"(Model|Schedule|Pipeline)[A-Z]\w+")
_FAILED: Final = frozenset({"ModelFailed", "PipelineFailed"})
_REFUSED: Final = "FailedPrecondition"
"""What the scheduler answers to what it will never carry out; the operator asks again after any other error."""

_RPC: Final = "rpc error"
_NO_KAFKA: Final = "available to handle pipeline"
"""End of what a Pipeline says where the parts of Seldon are not installed that join steps by Kafka."""

_NOTHING: Final = "Empty reason"


def offered(server: Manifest) -> tuple[str, ...] | None:
    """The capabilities that a Server offers, None if only its ServerConfig says."""
    spec = server["spec"]
    if spec.get("capabilities"):
        return tuple(spec["capabilities"])
    known = CAPABILITIES.get(spec["serverConfig"])
    return None if known is None else (*known, *(spec.get("extraCapabilities") or ()))


def seldon_v2_health(wanted: Sequence[Manifest], observed: Sequence[Manifest]) -> Health:
    """Whether a release does what was asked.

    Args:
        wanted: The objects as they were applied, the Experiment first.
        observed: The same, the Servers of the namespace, and the pods and events of a Server of the revision's own.
    """
    there = {(m["kind"], m["metadata"]["name"]): m for m in observed}
    experiment, *others = wanted
    for kind, read in (("Server", _server), ("Model", _model), ("Pipeline", _pipeline)):
        for manifest in (m for m in others if m["kind"] == kind):
            found = there.get((kind, manifest["metadata"]["name"]))
            what = f"the {kind} {manifest['metadata']['name']}"
            if found is None:
                return Health.progressing(f"{what} is not there yet")
            if "deletionTimestamp" in found["metadata"]:
                return Health.progressing(f"{what} of before is still being deleted")
            health = read(manifest, found, observed)
            if health.state is not HealthState.READY:
                return health
    found = there.get(("Experiment", experiment["metadata"]["name"]))
    if found is None:
        return Health.progressing("the Experiment is not there yet")
    return _experiment(experiment, found)


def _server(wanted: Manifest, server: Manifest, observed: Sequence[Manifest]) -> Health:
    name = server["metadata"]["name"]
    pods = [m for m in observed if m["kind"] == "Pod"]
    events = [m for m in observed if m["kind"] == "Event"]
    ready = _condition(server, "Ready")
    if ready.get("status") == "True":
        return Health.ready()
    for health in (pod_health(pod, events) for pod in pods):
        if health is not None:
            return health
    if not ready:
        return Health.progressing(_unheard("Server", name))
    words = ready.get("message") or ready.get("reason") or "no reason is given"
    config = wanted["spec"]["serverConfig"]
    if not pods and "not found" in words:
        return Health.stalled(f"the Server {name} cannot be made after the ServerConfig {config}: {words}")
    return Health.progressing(f"the Server {name} is not ready yet: {words}")


def _model(wanted: Manifest, model: Manifest, observed: Sequence[Manifest]) -> Health:
    name = model["metadata"]["name"]
    ready = _condition(model, "ModelReady", "Ready")
    if not ready:
        return Health.progressing(_unheard("Model", name))
    if ready["status"] == "True":
        spec = wanted["spec"]
        fewest = spec.get("minReplicas", spec.get("replicas", 1))
        loaded = (model.get("status") or {}).get("availableReplicas") or 0
        if loaded >= fewest:
            return Health.ready()
        # Seldon calls it ready from its first replica on, where there was a version before
        return Health.progressing(f"{loaded} of {fewest} replicas of the Model {name} are loaded")
    state, words = _state(ready)
    if state in _FAILED:
        # of what its server raised, a code is all that comes through
        more = " (the log of its Server says why)" if _RPC in words and _REFUSED not in words else ""
        return Health.failed(f"Seldon cannot load the Model {name}: {words or state}{more}")
    if state == "ScheduleFailed":
        return Health.stalled(f"no Server takes the Model {name}: {words or state}{_why_not(wanted, observed)}")
    if _RPC in words:
        return Health.stalled(
            f"Seldon's operator does not reach its scheduler for the Model {name} (is there a SeldonRuntime in the "
            f"namespace?): {words}"
        )
    if state == "ModelScaledDown":
        return Health.stalled(f"the Model {name} was scaled down to no replicas")
    return Health.progressing(f"the Model {name} is not loaded yet ({': '.join(one for one in (state, words) if one)})")


def _pipeline(wanted: Manifest, pipeline: Manifest, observed: Sequence[Manifest]) -> Health:  # noqa: ARG001
    name = pipeline["metadata"]["name"]
    conditions = {kind: _condition(pipeline, kind) for kind in ("PipelineReady", "PipelineGwReady", "ModelsReady")}
    if not any(conditions.values()):
        return Health.progressing(_unheard("Pipeline", name))
    for kind in ("PipelineReady", "PipelineGwReady"):
        condition = conditions[kind]
        if condition.get("status") == "True":
            continue
        state, words = _state(condition)
        why = f"the Pipeline {name} is not ready: {words or state or 'nothing is said of ' + kind}"
        if state in _FAILED:
            return Health.failed(why)
        return Health.stalled(why) if _RPC in words or _NO_KAFKA in words else Health.progressing(why)
    if conditions["ModelsReady"].get("status") != "True":
        # the revision's own one is
        steps = ", ".join(step["name"] for step in wanted["spec"]["steps"])
        return Health.stalled(f"a Model that the Pipeline {name} asks is not available: its steps are {steps}")
    return Health.ready()


def _experiment(wanted: Manifest, experiment: Manifest) -> Health:
    name, spec = experiment["metadata"]["name"], experiment["spec"]
    for field in ("candidates", "mirror", "default"):
        if spec.get(field) != wanted["spec"].get(field):
            return Health.failed(f"somebody else changed the Experiment {name}: its {field} is {spec.get(field)}")
    active = _condition(experiment, "ExperimentReady")
    # this is where the operator writes what the scheduler answered, though it is no condition of Experiments
    error = _condition(experiment, "ModelReady")
    said = error.get("reason") or error.get("message") or ""
    if UNSEEN_ANNOTATION in (experiment["metadata"].get("annotations") or {}):
        if error.get("status") == "False":
            # the same error again changes nothing in the status
            return Health.stalled(f"Seldon has not taken the Experiment's change up; its last error was: {said}")
        return Health.progressing(f"Seldon has not looked at the Experiment {name} as it is now")
    newer = (error.get("lastTransitionTime") or "") > (active.get("lastTransitionTime") or "")
    if error.get("status") == "False" and (newer or not active):
        why = f"Seldon does not take the Experiment {name}: {said}"
        return Health.failed(why) if _REFUSED in said else Health.stalled(why)
    if not active:
        return Health.progressing(_unheard("Experiment", name))
    for kind, field in (("CandidatesReady", "candidates"), ("MirrorReady", "mirror")):
        if _condition(experiment, kind).get("status") != "True":
            # the revision's own Model is available by now
            return Health.stalled(f"the Experiment {name} waits for its {field}: {_names(spec, field)}")
    if active["status"] != "True":
        return Health.progressing(f"the Experiment {name} does not share requests out yet")
    return Health.ready()


def _names(spec: Mapping[str, Any], field: str) -> str:
    found = spec.get(field) or ()
    return ", ".join(one["name"] for one in ([found] if isinstance(found, Mapping) else found))


def _condition(manifest: Manifest, *kinds: str) -> Mapping[str, Any]:
    """The first of the conditions that is there, or nothing."""
    conditions = {c["type"]: c for c in (manifest.get("status") or {}).get("conditions") or ()}
    return next((conditions[kind] for kind in kinds if kind in conditions), {})


def _state(condition: Mapping[str, Any]) -> tuple[str, str]:
    """Seldon's name of the state, and its words."""
    message, reason = (
        " | ".join(part for part in (condition.get(field) or "").split(" | ") if part != _NOTHING)
        for field in ("message", "reason")
    )
    return (reason, message) if _STATE.fullmatch(reason) and not _STATE.fullmatch(message) else (message, reason)


def _unheard(kind: str, name: str) -> str:
    return (
        f"Seldon has said nothing of the {kind} {name} yet (if it never does: does its operator run, and does it watch "
        "the namespace?)"
    )


def _why_not(wanted: Manifest, observed: Sequence[Manifest]) -> str:
    """What the Servers that there are lack."""
    spec = wanted["spec"]
    servers = [m for m in observed if m["kind"] == "Server"]
    names = ", ".join(server["metadata"]["name"] for server in servers)
    if not servers:
        return " (there is no Server in the namespace)"
    if (name := spec.get("server")) is not None and name not in {m["metadata"]["name"] for m in servers}:
        return f" (there is no Server {name} in the namespace, but {names})"
    asked = [m for m in servers if name in (None, m["metadata"]["name"])]
    capabilities = [offered(server) for server in asked]
    if all(capabilities):
        missing = [one for one in spec["requirements"] if not any(one in (known or ()) for known in capabilities)]
        if missing:
            return f" (none of {names} offers {', '.join(missing)})"
    return f" (the Servers are {names}: they need room in memory and as many replicas as the model)"
