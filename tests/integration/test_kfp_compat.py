"""What kfp's own local runner does with a prepared specification. Starts a Python process per step."""

import json
from typing import Any, Dict, List, NamedTuple, Optional

import pytest
from kfp import dsl, local
from kfp.local import pipeline_orchestrator

from longshore.authoring import component
from longshore.runner import run_pipeline
from longshore.runner.compat import executor_input, prepare


@component
def note(
    folder: str,
    name: str,
    text: Optional[str] = None,
    number: Optional[int] = None,
    items: Optional[List[str]] = None,
    options: Optional[Dict[str, Any]] = None,
    plain: int = 5,
) -> NamedTuple("Outputs", [("long_enough", bool), ("count", int)]):
    """Write down what arrived."""
    import json
    from pathlib import Path

    seen = [text, number, items, options, plain]
    (Path(folder) / f"{name}.json").write_text(json.dumps(seen))
    return text is not None and len(text) > 3, 2


@dsl.pipeline
def inner(folder: str, name: str, text: Optional[str] = None, number: Optional[int] = None):
    note(folder=folder, name=name, text=text, number=number)


@dsl.pipeline
def whole(
    folder: str,
    text: Optional[str] = None,
    number: Optional[int] = None,
    items: Optional[List[str]] = None,
    options: Optional[Dict[str, Any]] = None,
):
    first = note(folder=folder, name="first", text=text, number=number, items=items, options=options)
    with dsl.If(first.outputs["long_enough"] == True, name="long"):  # noqa: E712
        note(folder=folder, name="long", text=text, number=number)
        with dsl.If(first.outputs["count"] > 1):
            note(folder=folder, name="nested", number=first.outputs["count"])
    with dsl.Else():
        note(folder=folder, name="short", text=text)
    with dsl.ParallelFor(["x", "y"]) as item:
        note(folder=folder, name=item, number=number)
    inner(folder=folder, name="inner-unset")
    inner(folder=folder, name="inner-set", text=text, number=7)


@pytest.fixture
def run(tmp_path):
    def run_with(arguments):
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(tmp_path / "root"),
            workspace_root=str(tmp_path / "w"),
        )
        arguments = {"folder": str(tmp_path), **arguments}
        given = {k: v for k, v in arguments.items() if v is not None}
        pipeline_orchestrator.run_local_pipeline(prepare(whole.pipeline_spec, arguments), given)
        return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    return run_with


def test_what_nobody_set_is_none_in_the_step(run):
    assert run({"text": None}) == {
        "first": [None, None, None, None, 5],
        "short": [None, None, None, None, 5],
        "x": [None, None, None, None, 5],
        "y": [None, None, None, None, 5],
        "inner-unset": [None, None, None, None, 5],
        "inner-set": [None, 7, None, None, 5],
    }


def test_what_is_set_arrives_and_conditions_on_named_outputs_hold(run):
    assert run({"text": "longer", "number": 3, "items": ["a"], "options": {"b": 1}}) == {
        "first": ["longer", 3, ["a"], {"b": 1}, 5],
        "long": ["longer", 3, None, None, 5],
        "nested": [None, 2, None, None, 5],
        "x": [None, 3, None, None, 5],
        "y": [None, 3, None, None, 5],
        "inner-unset": [None, None, None, None, 5],
        "inner-set": ["longer", 7, None, None, 5],
    }


def test_the_given_specification_is_left_as_it_was():
    spec = whole.pipeline_spec
    before = spec.SerializeToString(deterministic=True)
    prepare(spec, {})
    assert spec.SerializeToString(deterministic=True) == before


@dsl.pipeline
def passes_on(folder: str, options: Dict[str, Any], items: List[Any]):
    note(folder=folder, name="passed", options=options, items=items)


def test_whole_numbers_in_dictionaries_and_lists_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "home"))
    options = {"trees": 50, "rate": 0.5, "deep": {"sizes": [3, 2.5]}}
    run_pipeline(passes_on, {"folder": str(tmp_path), "options": options, "items": [1, 2.5]})
    passed = json.loads((tmp_path / "passed.json").read_text())
    # as text, where 50 and 50.0 differ
    assert json.dumps(passed, sort_keys=True) == json.dumps([None, None, [1, 2.5], options, 5], sort_keys=True)


def test_a_parameter_that_is_a_number_is_kfps_business():
    given = {"inputs": {"parameterValues": {"share": 1.0, "count": 2}}}
    assert json.dumps(executor_input(json.dumps(given))) == json.dumps(given)
