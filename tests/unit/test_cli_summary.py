"""What a run came to, told to people and to programs."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longshore.cli.output import columns, plain
from longshore.cli.summary import as_plain, outcome_of, summary
from longshore.packaging import Column, ModelCard, Signature
from longshore.runner.reports import Artifact, RunReport, StepReport
from longshore.spec import Endpoint, to_plain


def step(name: str, artifacts: dict[str, Artifact] | None = None, /, **outputs: Any) -> StepReport:
    return StepReport(
        name=name, state="succeeded", seconds=1.5, log=Path("/log"), outputs=outputs, artifacts=artifacts or {}
    )


def report(*steps: StepReport, skipped: tuple[str, ...] = (), **outputs: Any) -> RunReport:
    return RunReport(
        id="run-1",
        name="pipeline",
        state="succeeded",
        steps=steps,
        skipped=skipped,
        outputs=outputs,
        seconds=3.25,
        root=Path("/runs/run-1"),
    )


METRICS = Artifact(
    type="system.Metrics", uri="/m", metadata={"f1_macro": 0.5, "accuracy": 0.98765, "recall": 0.1, "note": "x"}
)
ENDPOINT = Artifact(type="system.Artifact", uri="http://127.0.0.1:80", metadata={})
TRAINED = step("train-sklearn", task="classification", estimator="sklearn.Forest", rows=275)
APPROVED = step("validate-model", approved=True, summary="accuracy 0.98 >= 0.9")
REJECTED = step("validate-model", approved=False, summary="rejected: accuracy 0.5 < 0.9")
DEPLOYED = step("deploy-model", url="http://127.0.0.1:80", revision="m-2", replaced="m-1")


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([], "succeeded"),
        ([TRAINED, APPROVED], "succeeded"),
        ([TRAINED, REJECTED], "rejected"),
        ([TRAINED, APPROVED, DEPLOYED], "deployed"),
        ([DEPLOYED], "deployed"),
    ],
)
def test_the_outcome_follows_from_verdict_and_deployment(steps: list[StepReport], outcome: str) -> None:
    assert outcome_of(report(*steps)) == outcome


def test_the_summary_of_a_deployment_names_all_that_matters() -> None:
    text = summary(
        report(
            TRAINED,
            step("evaluate-model", {"metrics": METRICS}),
            APPROVED,
            step("register-model", name="m", version="3"),
            DEPLOYED,
            step("predict-endpoint", requests=69, failed=0),
            step("monitor-endpoint", requests=69, p50_seconds=0.0021, p99_seconds=0.0143, drift="none"),
        )
    )
    assert [line.split()[0] for line in text.splitlines()] == [
        "trained",
        "scores",
        "verdict",
        "registered",
        "endpoint",
        "requests",
        "latency",
        "drift",
        "run",
    ]
    for words in (
        "sklearn.Forest, classification, 275 rows",
        "accuracy 0.9877, f1_macro 0.5\n",
        "approved: accuracy 0.98 >= 0.9",
        "m version 3 (champion)",
        "http://127.0.0.1:80 (revision m-2, replaces m-1)",
        "69 sent, 0 failed",
        "p50 2.1 ms, p99 14.3 ms",
        "3.2 s, files in /runs/run-1",
    ):
        assert words in text


def test_a_rejected_model_is_told_clearly_with_what_was_skipped() -> None:
    text = summary(report(TRAINED, REJECTED, skipped=("register-model", "deploy-model")))
    assert "REJECTED, not registered and not deployed: accuracy 0.5 < 0.9" in text
    assert "skipped  register-model, deploy-model" in " ".join(text.split("\n")).replace("   ", "  ")


def test_a_model_that_is_not_deployed_stays_the_challenger() -> None:
    assert "m version 1 (challenger)" in summary(report(step("register-model", name="m", version="1")))


def test_scores_that_are_not_known_are_shown_as_they_are() -> None:
    scored = step("evaluate-model", scores={"beauty": 0.25})
    assert "scores  beauty 0.25" in summary(report(scored))


def test_a_model_of_the_pipeline_gives_the_line_to_ask_the_endpoint(tmp_path: Path) -> None:
    inputs = (
        Column(name="Größe", kind="number", nullable=False),
        Column(name="owner", kind="text", nullable=False),
    )
    card = ModelCard(
        format="sklearn",
        task="regression",
        estimator="sklearn.Forest",
        parameters={},
        seed=0,
        signature=Signature(inputs=inputs, task="regression", target="y", classes=None),
        baseline=(),
        example=({"Größe": 1.5, "owner": "O'Hara"}, {"Größe": 2.5, "owner": "B"}),
        data_digest="sha256:0",
        rows=2,
        libraries={},
        files={},
    )
    (tmp_path / "model.json").write_text(card.to_json(), encoding="utf-8")
    model = Artifact(type="system.Model", uri=str(tmp_path), metadata={})
    endpoint = Artifact(
        type="system.Artifact",
        uri="http://127.0.0.1:80",
        metadata=to_plain(Endpoint(url="http://127.0.0.1:80", name="m", model="m", revision="m-2")),
    )
    steps = step("train-sklearn", {"model": model}), step("deploy-model", {"endpoint": endpoint})
    curl = next(line for line in summary(report(*steps)).splitlines() if line.strip().startswith("curl"))
    words = shlex.split(curl)
    assert words[-1] == "http://127.0.0.1:80/v1/models/m:predict"
    assert json.loads(words[words.index("-d") + 1]) == {"instances": [{"Größe": 1.5, "owner": "O'Hara"}]}
    inside = Endpoint(url="http://m.prod.svc:9000", name="m", model="m", revision="m-2")
    endpoint = replace(endpoint, uri=inside.url, metadata=to_plain(inside))
    steps = steps[0], step("deploy-model", {"endpoint": endpoint})
    *_, forward, curl = summary(report(*steps)).splitlines()
    assert forward.strip() == "kubectl -n prod port-forward service/m 8080:9000 &"
    assert curl.endswith("http://127.0.0.1:8080/v1/models/m:predict")


def test_a_pipeline_of_other_steps_is_summed_up_by_outputs() -> None:
    lines = summary(report(step("add", total=3), step("say"), answer=42)).splitlines()
    assert [line.split() for line in lines[:3]] == [["add", "total", "3"], ["say", "succeeded"], ["answer", "42"]]


def test_the_summary_is_lenient_with_outputs_that_are_missing() -> None:
    names = ("train-sklearn", "evaluate-model", "validate-model", "register-model", "deploy-model", "monitor-endpoint")
    assert "endpoint" in summary(report(*(step(name) for name in names)))


def test_the_report_as_json_holds_everything() -> None:
    told = json.loads(json.dumps(as_plain(report(step("add", {"made": METRICS}, total=3), answer=float("nan")))))
    assert told["root"] == "/runs/run-1"
    assert told["outputs"] == {"answer": None}
    assert told["steps"][0]["outputs"] == {"total": 3}
    assert told["steps"][0]["artifacts"]["made"]["metadata"]["accuracy"] == 0.98765
    assert told["steps"][0]["log"] == "/log"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        (True, True),
        ((1, "a"), [1, "a"]),
        ({1: Path("/x")}, {"1": "/x"}),
        (b"x", "b'x'"),
    ],
)
def test_plain_values(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_columns_are_aligned_and_the_last_is_left_alone() -> None:
    assert columns([("a", "bb", "long text"), ("ccc", "d", "")]) == "a    bb  long text\nccc  d"
    assert columns([]) == ""
