"""The parts of the local runner that start nothing."""

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl import component_factory

from longshore.runner.forkserver import Outcome, Request, StepError, receive, send
from longshore.runner.helper import libraries_for
from longshore.runner.kfp_hooks import plain_step, with_this_python
from longshore.runner.reports import RunFailed, RunReport
from longshore.runner.steps import _Call, _why


def body(a: int) -> int:
    return a + 1


def command_of(**options: object) -> list[str]:
    built = dsl.component(body, base_image="python:3.11", **options)
    container = built.component_spec.implementation.container
    return [*map(str, container.command), "--executor_input", "{}", "--function_to_execute", "body"]


def test_the_command_of_a_component_that_installs_nothing_is_plain() -> None:
    source, argv = plain_step(command_of(install_kfp_package=False)) or ("", [])
    assert "def body(a: int)" in source
    assert argv == ["--executor_input", "{}", "--function_to_execute", "body"]


@pytest.mark.parametrize(
    "command",
    [
        command_of(install_kfp_package=True),
        command_of(install_kfp_package=False, packages_to_install=["left-pad"]),
        ["python3", "-m", component_factory.EXECUTOR_MODULE],
        ["sh", "-ec", "echo hello", "source", "--executor_input"],
        ["sh", "-ec"],
        [],
    ],
)
def test_any_other_command_is_not(command: list[str]) -> None:
    assert plain_step(command) is None


def test_the_interpreter_is_put_in_scripts_but_not_in_source_or_arguments() -> None:
    command = command_of(install_kfp_package=False, packages_to_install=["left-pad"])
    source = next(i for i, part in enumerate(command) if "def body" in part)
    command[source] += "# python3"
    command[-1] = "python3"
    replaced = with_this_python(command)
    assert replaced[source:] == command[source:]
    assert any(f"{sys.executable} -m pip install" in part for part in replaced[:source])
    assert not any("python3 -m" in part.replace(sys.executable, "") for part in replaced[:source])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("run-1/train/executor_output.json", "train"),
        ("run-1/for-loop-1-iteration-0/train/executor_output.json", "for-loop-1-iteration-0/train"),
    ],
)
def test_a_step_is_named_after_the_place_of_its_outputs(path: str, name: str) -> None:
    inputs = {"outputs": {"outputFile": f"/artifacts/{path}"}}
    call = _Call.of(["sh", "-c", "true", "--executor_input", json.dumps(inputs)])
    assert call.name(Path("/artifacts")) == name
    assert call.component == "train"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome(status=1, error=StepError(type="DataError", message="no rows", told=True)), "no rows"),
        (Outcome(status=1, error=StepError(type="KeyError", message="'a'", told=False)), "KeyError: 'a' (see {log})"),
        (Outcome(status=-15), "its process was ended by SIGTERM (see {log})"),
        (Outcome(status=3), "its process ended with exit status 3: last words (see {log})"),
    ],
)
def test_why_a_step_failed(outcome: Outcome, told: str, tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    log.write_text("x" * 20_000 + "\nlast words\n\n")
    assert _why(outcome, log) == told.format(log=log)


def test_a_step_that_printed_nothing(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    log.touch()
    assert "it printed nothing" in _why(Outcome(status=2), log)


@pytest.mark.parametrize(
    ("source", "first", "count"),
    [
        ("def f(): return 1", None, 0),
        ("import pandas as pd", "pandas", 1),
        ("from sklearn.base import clone", "sklearn.base", 5),
        ("import pandas_like", None, 0),
    ],
)
def test_libraries_are_loaded_ahead_if_a_step_names_them(
    source: str, first: str | None, count: int, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    libraries = libraries_for(source)
    assert (next(iter(libraries), None), len(libraries)) == (first, count)


def test_steps_of_the_library_have_all_loaded_and_none_on_macos(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert {"pandas", "sklearn.base", "mlflow.tracking"} < set(libraries_for("from longshore.training import fit"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert libraries_for("from longshore.training import fit") == []


def test_a_message_of_any_size_passes_through_a_channel() -> None:
    left, right = socket.socketpair()
    request = Request(run="r", folder="/f", source="ä" * 3_000_000, argv=["a"], command=["b"], environment={"A": "b"})
    with left, right:
        sender = threading.Thread(target=send, args=[left, request])
        sender.start()
        assert Request(**receive(right)) == request
        sender.join()


def test_a_closed_channel_is_told() -> None:
    left, right = socket.socketpair()
    with right:
        left.sendall(b"\0\0\0")
        left.close()
        with pytest.raises(EOFError):
            receive(right)


def test_a_failed_run_can_be_handed_to_another_process() -> None:
    import pickle

    report = RunReport(id="r", name="p", state="failed", steps=(), skipped=(), outputs={}, seconds=1.0, root=Path("/r"))
    copy = pickle.loads(pickle.dumps(RunFailed("step a failed: no", report)))
    assert (str(copy), copy.report) == ("step a failed: no", report)
