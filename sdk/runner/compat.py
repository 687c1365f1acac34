"""What kfp 2.17's local runner does otherwise than a cluster, mended in the specification before it runs.

- An optional parameter that nobody set: a cluster's driver leaves it out and the step sees None, ``kfp.local`` fails
  with "Unknown value type", or with a TypeError where it is an integer.
- A condition on a named output (``task.outputs["approved"]``): ``kfp.local`` looks only for outputs called
  ``Output`` and takes every other condition for false.
- Whole numbers inside of lists, dictionaries and artifact metadata: a cluster passes 50 on as 50, ``kfp.local`` as 50.0
  and estimators refuse that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

__all__ = ["executor_input", "prepare"]

_REFERENCE: Final = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def prepare(spec: Any, arguments: Mapping[str, Any]) -> Any:
    """A copy of a pipeline specification that ``kfp.local`` runs as a cluster would.

    Args:
        spec: A ``kfp.pipeline_spec.pipeline_spec_pb2.PipelineSpec``; it is not changed.
        arguments: What the caller sets; None counts as unset.
    """
    prepared = type(spec)()
    prepared.CopyFrom(spec)
    _prune(prepared, prepared.root, [name for name, value in arguments.items() if value is not None])
    for component in (prepared.root, *prepared.components.values()):
        if component.WhichOneof("implementation") == "dag":
            for task in component.dag.tasks.values():
                _name_outputs(task)
    return prepared


def executor_input(text: str) -> dict[str, Any]:
    """What a step is given, with whole numbers as a cluster would pass them on.

    Args:
        text: kfp's ExecutorInput as JSON.
    """
    content: dict[str, Any] = json.loads(text)
    inputs = content.get("inputs", {})
    values = inputs.get("parameterValues", {})
    # kfp itself settles the type of a parameter that is a number
    values.update({name: _whole(value) for name, value in values.items() if isinstance(value, (dict, list))})
    for artifact in inputs.get("artifacts", {}).values():
        for item in artifact["artifacts"]:
            item["metadata"] = _whole(item.get("metadata", {}))
    return content


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name_outputs(task: Any) -> None:
    """Write a condition's references to outputs as ``TASK--OUTPUT``, the one form that is looked up by name."""
    if not task.trigger_policy.condition:
        return

    def reference(match: re.Match[str]) -> str:
        source = task.inputs.parameters[match[1]]
        if not source.HasField("task_output_parameter"):
            return match[0]
        output = source.task_output_parameter
        return f"inputs.parameter_values['pipelinechannel--{output.producer_task}--{output.output_parameter_key}']"

    task.trigger_policy.condition = _REFERENCE.sub(reference, task.trigger_policy.condition)


def _prune(spec: Any, component: Any, given: Collection[str]) -> None:
    """Remove from one component, and from all below it, the inputs that are neither given nor have a default.

    Whether an input is declared optional does not matter: a required one is given, and the groups that kfp makes
    of conditions and loops declare none of theirs.
    """
    inputs = component.input_definitions.parameters
    unset = [
        name for name, parameter in inputs.items() if not parameter.HasField("default_value") and name not in given
    ]
    for name in unset:
        del inputs[name]
    if component.WhichOneof("implementation") != "dag":
        return
    for task_name, task in component.dag.tasks.items():
        sources = task.inputs.parameters
        for name in [name for name, source in sources.items() if source.component_input_parameter in unset]:
            del sources[name]
        looped = [task.parameter_iterator.item_input, task.artifact_iterator.item_input]
        _prune(spec, _own_component(spec, task_name, task), [*sources, *looped])


def _own_component(spec: Any, task_name: str, task: Any) -> Any:
    """The task's component, copied where others use it too: they may set other inputs."""
    name = task.component_ref.name
    dags = [c.dag for c in (spec.root, *spec.components.values()) if c.WhichOneof("implementation") == "dag"]
    users = sum(other.component_ref.name == name for dag in dags for other in dag.tasks.values())
    if users > 1:
        own = f"{name}-for-{task_name}"
        spec.components[own].CopyFrom(spec.components[name])
        task.component_ref.name = own
        return spec.components[own]
    return spec.components[name]
