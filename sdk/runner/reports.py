"""What the local pipeline runner tells: events while a run goes on, reports when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from longshore.errors import LongshoreError

__all__ = [
    "Artifact",
    "Event",
    "RunFailed",
    "RunReport",
    "State",
    "StepFinished",
    "StepOutput",
    "StepReport",
    "StepStarted",
]

State = Literal["succeeded", "failed"]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An output artifact of a step.

    Args:
        type: Kubeflow's schema title, such as ``system.Model``.
        uri: Where the content is.
        metadata: What the step wrote about it.
    """

    type: str
    uri: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What came of a step.

    Args:
        name: Name of the task; inside a loop with the iteration before it, ``for-loop-1-iteration-0/train``.
        state: How its last attempt ended.
        seconds: Wall time of the last attempt.
        outputs: Output parameters with the values that the step wrote.
        artifacts: Output artifacts by name.
        log: File with everything that the step printed.
        error: Why it failed, None if it did not.
        error_type: Class name of the exception that ended it, None if there was none.
        attempts: How often it was run; more than once only with ``set_retry``.
    """

    name: str
    state: State
    seconds: float
    log: Path
    outputs: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    error: str | None = None
    error_type: str | None = None
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What came of a pipeline run.

    Args:
        id: The run's id; steps find it in the environment variable ``LONGSHORE_RUN``.
        name: Name of the pipeline.
        state: ``failed`` if a step failed that was not repeated with success.
        steps: The steps in the order in which they started.
        skipped: Tasks that did not run, by name: their condition was false or what they need failed.
        outputs: Outputs of the pipeline; an artifact as a mapping with ``uri`` and ``metadata``.
        seconds: Wall time of the whole run.
        root: Folder of the run: ``artifacts``, ``logs`` and kfp's own messages in ``run.log``.
        warnings: What kfp found questionable, such as a condition that it could not evaluate.
    """

    id: str
    name: str
    state: State
    steps: tuple[StepReport, ...]
    skipped: tuple[str, ...]
    outputs: Mapping[str, Any]
    seconds: float
    root: Path
    warnings: tuple[str, ...] = ()

    def step(self, name: str) -> StepReport | None:
        """The step of that name, None if it did not run."""
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True)
class StepStarted:
    """A step has been started."""

    name: str


@dataclass(frozen=True)
class StepOutput:
    """A step has printed a line; only with ``verbose``."""

    name: str
    line: str


@dataclass(frozen=True)
class StepFinished:
    """An attempt at a step is over."""

    report: StepReport


Event = StepStarted | StepOutput | StepFinished


class RunFailed(LongshoreError):
    """A pipeline run failed.

    Args:
        message: Which step failed and its own words.
        report: What came of every step.
    """

    def __init__(self, message: str, report: RunReport) -> None:
        self.report = report
        super().__init__(message)

    def __reduce__(self) -> tuple[type[RunFailed], tuple[str, RunReport]]:
        return type(self), (str(self), self.report)
