"""Run a Kubeflow pipeline on this machine, through ``kfp.local``.

Kubeflow's own orchestrator decides what runs when; this module replaces how one step is started (see
:mod:`longshore.runner.forkserver`), keeps a log per step, and says what came of each.
"""

from __future__ import annotations

import contextlib
import difflib
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from longshore import home
from longshore.deployment import undo_run
from longshore.errors import ConfigError
from longshore.runner.helper import Helper, libraries_for
from longshore.runner.reports import Event, RunFailed, RunReport, StepReport
from longshore.runner.steps import StepRunner

__all__ = ["check_arguments", "run_pipeline"]

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

# kfp keeps the settings of a local run in a global variable
_one_run_at_a_time = threading.Lock()


def run_pipeline(
    pipeline: Any,
    arguments: Mapping[str, Any] | None = None,
    *,
    on_event: Callable[[Event], None] | None = None,
    verbose: bool = False,
    helper: Helper | None = None,
    undo: Callable[[str], None] = undo_run,
) -> RunReport:
    """Run a pipeline on this machine and wait for its end.

    Steps are processes of their own, as on a cluster. They end with this process, however it ends. While a run
    lasts, ``kfp.local`` cannot be used for anything else in this process; a second call waits for the first.

    Args:
        pipeline: A ``kfp.dsl`` pipeline.
        arguments: Its arguments; None counts as not given.
        on_event: Called in the calling thread for every event. An exception that it raises ends the run.
        verbose: Whether the lines that steps print are events too.
        helper: A process that starts the steps, for a caller who can have it load libraries while there is other
            work to do; by default one is started for this run.
        undo: Called with the run's id once the steps of an interrupted run have ended, to take back what they did;
            by default servers on this machine.

    Returns:
        The report; its ``root`` is a new folder in :func:`longshore.home.runs`.

    Raises:
        ConfigError: If the arguments do not fit the pipeline; nothing has been run.
        RunFailed: If a step failed; the message has the step's own words, ``report`` the rest.
        KeyboardInterrupt: The run was interrupted; its steps have ended.
    """
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    check_arguments(pipeline, given)
    with _one_run_at_a_time:
        run = _Run(pipeline, given, verbose=verbose)
        with contextlib.nullcontext(helper) if helper else Helper(run.libraries()) as process:
            return run.run(process, on_event or (lambda _: None), undo)


def check_arguments(pipeline: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a pipeline does not take.

    Raises:
        ConfigError: Naming an unknown argument with those that are near, a missing one, or one of a wrong type.
    """
    from kfp.dsl.types import type_utils

    inputs = pipeline.component_spec.inputs or {}
    for name, value in arguments.items():
        if name not in inputs:
            near = difflib.get_close_matches(name, inputs, n=3) or sorted(inputs)
            raise ConfigError(f"{pipeline.name} has no parameter {name!r}: {_known(near)}")
        try:
            type_utils.verify_type_compatibility(value, inputs[name], "")
        except type_utils.InconsistentTypeException as error:
            why = f"{value!r} is not of its type {inputs[name].type}"
            raise ConfigError(f"{pipeline.name}: parameter {name!r}: {why}") from error
    missing = [name for name in pipeline.required_inputs if name not in arguments]
    if missing:
        raise ConfigError(f"{pipeline.name} needs a value for {', '.join(missing)}")


def _known(names: list[str]) -> str:
    return f"there is {', '.join(names)}" if names else "it takes none"


class _Run:
    """One run: a thread in which kfp works, and what is told of it in the calling thread."""

    def __init__(self, pipeline: Any, arguments: Mapping[str, Any], *, verbose: bool) -> None:
        from longshore.runner.compat import prepare

        self.name: str = pipeline.pipeline_spec.pipeline_info.name
        self.id = f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        self.root = home.runs() / self.id
        self._spec = prepare(pipeline.pipeline_spec, arguments)
        self._arguments = arguments
        self._verbose = verbose
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._warnings: list[str] = []
        self._outputs: Mapping[str, Any] = {}
        self._failure: Exception | None = None

    def libraries(self) -> list[str]:
        """What the steps are likely to import."""
        return libraries_for("\n".join(str(executor) for _, executor in _executors(self._spec)))

    def run(self, helper: Helper, on_event: Callable[[Event], None], undo: Callable[[str], None]) -> RunReport:
        try:
            (self.root / "logs").mkdir(parents=True)
        except OSError as error:
            why = f"{self.root} cannot be made ({error.strerror})"
            raise ConfigError(f"{why}: set LONGSHORE_HOME to a folder that can be written") from error
        began = time.perf_counter()
        steps = StepRunner(
            run=self.id,
            root=self.root,
            helper=helper,
            outputs_of=_output_types(self._spec),
            on_event=self._events.put,
            verbose=self._verbose,
        )
        thread = threading.Thread(target=self._work, args=[steps], name=f"longshore run {self.id}")
        thread.start()
        try:
            while (event := self._events.get()) is not None:
                on_event(event)
        except BaseException:
            steps.stop()
            try:
                thread.join()
            finally:
                undo(self.id)
            raise
        thread.join()
        return self._report(steps.reports(), time.perf_counter() - began)

    def _work(self, steps: StepRunner) -> None:
        """Carry the run out; in a thread, so that Ctrl-C reaches the caller even while kfp waits for its own."""
        from kfp.local import pipeline_orchestrator

        from longshore.runner.kfp_hooks import hooked

        try:
            with (
                (self.root / "run.log").open("w", encoding="utf-8", buffering=1) as log,
                hooked(steps.run_step, root=self.root, log=log, warn=self._warnings.append),
            ):
                self._outputs = pipeline_orchestrator.run_local_pipeline(self._spec, dict(self._arguments))
        except Exception as error:  # noqa: BLE001 - it is told in the calling thread
            self._failure = error
        finally:
            self._events.put(None)

    def _report(self, steps: tuple[StepReport, ...], seconds: float) -> RunReport:
        if isinstance(self._failure, ConfigError):
            raise self._failure
        ran = {step.name.rpartition("/")[2] for step in steps}
        report = RunReport(
            id=self.id,
            name=self.name,
            state="succeeded" if self._failure is None else "failed",
            steps=steps,
            skipped=tuple(sorted(_tasks(self._spec) - ran)),
            outputs={name: _plain(value) for name, value in self._outputs.items()},
            seconds=seconds,
            root=self.root,
            warnings=tuple(_COLOUR.sub("", warning) for warning in self._warnings),
        )
        if self._failure is None:
            return report
        failed = next((step for step in steps if step.state == "failed"), None)
        if failed is not None:
            raise RunFailed(f"step {failed.name} failed: {failed.error}", report)
        # kfp's own complaint: a kind of step that it cannot run here, or outputs that a step did not write
        why = _COLOUR.sub("", str(self._failure))
        raise RunFailed(f"pipeline {self.name} failed: {why} (see {self.root / 'run.log'})", report) from self._failure


def _executors(spec: Any) -> Iterator[tuple[str, Any]]:
    """The components that run something, by name, with their executors."""
    executors = spec.deployment_spec["executors"]
    for name, component in spec.components.items():
        if component.WhichOneof("implementation") == "executor_label":
            yield name, executors[component.executor_label]


def _tasks(spec: Any) -> set[str]:
    return {name.removeprefix("comp-") for name, executor in _executors(spec) if "container" in executor}


def _output_types(spec: Any) -> dict[str, dict[str, bool]]:
    """For each component, whether an output parameter is a string."""
    from kfp.pipeline_spec import pipeline_spec_pb2

    string = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.STRING
    return {
        name.removeprefix("comp-"): {
            key: parameter.parameter_type == string
            for key, parameter in component.output_definitions.parameters.items()
        }
        for name, component in spec.components.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "uri") and hasattr(value, "metadata"):
        return {"uri": value.uri, "metadata": dict(value.metadata)}
    return value
