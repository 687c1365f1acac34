"""What a run on this machine came to, for people and for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from longshore.cli.output import columns, plain
from longshore.errors import LongshoreError
from longshore.runner.reports import RunReport, StepReport

__all__ = ["Outcome", "as_plain", "outcome_of", "summary"]

Outcome = Literal["succeeded", "deployed", "rejected"]

_SCORES: Final = ("accuracy", "f1_macro", "roc_auc", "log_loss", "rmse", "mae", "r2")
"""The scores to show, in this order; where a step has none of them, all that it has."""


def outcome_of(report: RunReport) -> Outcome:
    """What a run that did not fail came to."""
    judged = report.step("validate-model")
    if judged is not None and judged.outputs.get("approved") is False:
        return "rejected"
    return "succeeded" if report.step("deploy-model") is None else "deployed"


def as_plain(report: RunReport) -> dict[str, Any]:
    """The report as JSON can hold it."""
    values: dict[str, Any] = plain(report)
    return values


def summary(report: RunReport) -> str:
    """What a person wants to know of the run, as lines; steps that the run did not have are left out."""
    rows = list(_rows(report))
    if not rows:
        rows = [(step.name, _pairs(step.outputs) or step.state) for step in report.steps]
    rows += [(name, str(value)) for name, value in report.outputs.items()]
    if report.skipped:
        rows.append(("skipped", ", ".join(report.skipped)))
    rows.append(("run", f"{report.seconds:.1f} s, files in {report.root}"))
    lines = [columns(rows)]
    calls = _calls(report)
    if calls:
        lines += ["", "Ask it:", *(f"  {call}" for call in calls)]
    return "\n".join(lines)


def _rows(report: RunReport) -> Iterator[tuple[str, str]]:
    for name, tell in _TOLD.items():
        step = report.step(name)
        if step is not None and step.state == "succeeded":
            yield from tell(step, report)


def _trained(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    told = step.outputs
    yield "trained", ", ".join(str(told[key]) for key in ("estimator", "task") if key in told) + _count(told, "rows")


def _count(told: Mapping[str, Any], key: str) -> str:
    return f", {told[key]} {key}" if key in told else ""


def _scored(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    scores = step.artifacts["metrics"].metadata if "metrics" in step.artifacts else step.outputs.get("scores", {})
    numbers = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
    chosen = {name: numbers[name] for name in _SCORES if name in numbers} or numbers
    if chosen:
        yield "scores", _pairs(chosen)


def _judged(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    verdict = "approved" if step.outputs.get("approved") else "REJECTED, not registered and not deployed"
    reasons = str(step.outputs.get("summary", "")).removeprefix("approved: ").removeprefix("rejected: ")
    yield "verdict", ": ".join(filter(None, (verdict, reasons)))


def _registered(step: StepReport, report: RunReport) -> Iterator[tuple[str, str]]:
    alias = "challenger" if report.step("deploy-model") is None else "champion"
    yield "registered", f"{step.outputs.get('name')} version {step.outputs.get('version')} ({alias})"


def _deployed(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    replaced = step.outputs.get("replaced")
    told = f", replaces {replaced}" if replaced and replaced != step.outputs.get("revision") else ""
    yield "endpoint", f"{step.outputs.get('url')} (revision {step.outputs.get('revision')}{told})"


def _asked(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    yield "requests", f"{step.outputs.get('requests')} sent, {step.outputs.get('failed')} failed"


def _watched(step: StepReport, _: RunReport) -> Iterator[tuple[str, str]]:
    told = step.outputs
    times = [f"{key} {1000 * told[f'{key}_seconds']:.1f} ms" for key in ("p50", "p99") if f"{key}_seconds" in told]
    yield "latency", ", ".join(times)
    yield "drift", str(told.get("drift"))


_TOLD: Final = {
    "train-sklearn": _trained,
    "evaluate-model": _scored,
    "validate-model": _judged,
    "register-model": _registered,
    "deploy-model": _deployed,
    "predict-endpoint": _asked,
    "monitor-endpoint": _watched,
}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _calls(report: RunReport) -> list[str]:
    """Commands that ask the endpoint about an example that came with the model."""
    from longshore.artifacts import read_endpoint
    from longshore.packaging import read_card

    deployed, model = report.step("deploy-model"), _model_directory(report)
    if deployed is None or "endpoint" not in deployed.artifacts or model is None:
        return []
    try:
        endpoint = read_endpoint(deployed.artifacts["endpoint"])
        body = json.dumps({"instances": plain(read_card(model).example[:1])}, ensure_ascii=False)
    except (LongshoreError, OSError):
        return []
    calls = []
    if endpoint.in_cluster is not None:
        service, namespace = endpoint.in_cluster
        port = urlsplit(endpoint.url).port or 80
        calls.append(f"kubectl -n {namespace} port-forward service/{service} 8080:{port} &")
        endpoint = replace(endpoint, url="http://127.0.0.1:8080")
    head = "curl -s -H 'Content-Type: application/json'"
    return [*calls, f"{head} -d {shlex.quote(body)} {shlex.quote(endpoint.predict_url)}"]


def _model_directory(report: RunReport) -> Path | None:
    for step_name, artifact in (("package-model", "packaged"), ("train-sklearn", "model")):
        step = report.step(step_name)
        if step is not None and artifact in step.artifacts and "://" not in step.artifacts[artifact].uri:
            return Path(step.artifacts[artifact].uri)
    return None
