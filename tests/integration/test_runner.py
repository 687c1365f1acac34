"""Pipelines on this machine: real steps in real processes."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from kfp import dsl

from longshore import home
from longshore.authoring import component
from longshore.errors import ConfigError
from longshore.runner.reports import RunFailed, StepFinished, StepOutput, StepStarted
from longshore.runner.run import run_pipeline

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "home"))


@component
def add(a: int, b: int = 1) -> int:
    return a + b


@component
def describe(values: list) -> str:
    return ",".join(str(int(value)) for value in values)


@component
def write(text: str, count: dsl.OutputPath(int), flag: dsl.OutputPath(bool), made: dsl.Output[dsl.Dataset]):
    from pathlib import Path

    Path(count).write_text(str(len(text)))
    Path(flag).write_text("True")
    Path(made.path).write_text(text)
    made.metadata["rows"] = 3


@component
def read(made: dsl.Input[dsl.Dataset]) -> str:
    from pathlib import Path

    return Path(made.path).read_text()


@component
def refuse(message: str):
    from longshore.errors import DataError

    raise DataError(message)


@component
def divide(a: int) -> float:
    print("about to divide")
    return a / 0


@component
def leave(how: str):
    import os
    import signal
    import sys

    print("going")
    if how == "os._exit":
        os._exit(7)
    elif how == "sys.exit":
        sys.exit(5)
    else:
        os.kill(os.getpid(), getattr(signal, how))


@component
def shout(megabytes: int):
    line = "x" * 1023
    for _ in range(megabytes * 1024):
        print(line)


@component
def environment(names: list) -> dict:
    import os
    import sys

    return {name: os.environ.get(name, "") for name in names} | {"python": sys.executable, "pid": str(os.getpid())}


@component
def note(path: str, status: dsl.PipelineTaskFinalStatus):
    from pathlib import Path

    Path(path).write_text(f"{status.state} {status.error_message}")


def one(task_component, **arguments):
    """A pipeline of one step."""

    @dsl.pipeline(name="one")
    def pipeline():
        task_component(**arguments)

    return pipeline


def test_steps_hand_values_on_and_are_reported_in_order() -> None:
    @dsl.pipeline(name="sums")
    def sums(start: int, more: int = 2) -> int:
        first = add(a=start)
        second = add(a=first.output, b=more)
        return second.output

    events = []
    report = run_pipeline(sums, {"start": 3}, on_event=events.append)
    assert report.outputs == {"Output": 6}
    assert [(step.name, step.state, step.outputs) for step in report.steps] == [
        ("add", "succeeded", {"Output": 4}),
        ("add-2", "succeeded", {"Output": 6}),
    ]
    assert all(isinstance(step.outputs["Output"], int) for step in report.steps)
    assert report.state == "succeeded"
    assert report.skipped == ()
    assert report.root.parent == home.runs()
    assert events == [
        StepStarted("add"),
        StepFinished(report.steps[0]),
        StepStarted("add-2"),
        StepFinished(report.steps[1]),
    ]


def test_outputs_written_to_files_keep_their_types_and_artifacts_their_metadata() -> None:
    @dsl.pipeline(name="files")
    def files(text: str) -> str:
        written = write(text=text)
        return read(made=written.outputs["made"]).output

    report = run_pipeline(files, {"text": "grüße\n"})
    step = report.step("write")
    assert step is not None
    assert step.outputs == {"count": 6, "flag": True}
    assert step.artifacts["made"].type == "system.Dataset"
    assert step.artifacts["made"].metadata == {"rows": 3}
    assert Path(step.artifacts["made"].uri).read_text() == "grüße\n"
    assert report.outputs == {"Output": "grüße\n"}


@pytest.mark.parametrize(("start", "ran"), [(1, "add-2"), (9, "add-3")])
def test_conditions_run_one_branch_and_name_what_was_skipped(start: int, ran: str) -> None:
    @dsl.pipeline(name="branches")
    def branches(start: int):
        first = add(a=start)
        with dsl.If(first.output < 5):
            add(a=10)
        with dsl.Else():
            add(a=20)

    report = run_pipeline(branches, {"start": start})
    assert [step.name for step in report.steps] == ["add", ran]
    assert report.skipped == tuple({"add-2", "add-3"} - {ran})
    assert report.warnings == ()


def test_loops_run_side_by_side_and_are_collected() -> None:
    @dsl.pipeline(name="loop")
    def loop() -> str:
        with dsl.ParallelFor([1, 2, 3, 4, 5, 6]) as item:
            each = add(a=item)
        return describe(values=dsl.Collected(each.output)).output

    report = run_pipeline(loop)
    assert report.outputs == {"Output": "2,3,4,5,6,7"}
    iterations = sorted(step.name.partition("-iteration-")[2] for step in report.steps)
    assert iterations == ["", "0/add", "1/add", "2/add", "3/add", "4/add", "5/add"]


def test_kfp_leaves_output_and_logging_of_this_process_alone(capfd: pytest.CaptureFixture[str]) -> None:
    import builtins
    import logging

    before = builtins.print, logging.getLogger().handlers[:], logging.getLogger().level, sys.stdout

    @dsl.pipeline(name="loop")
    def loop():
        with dsl.ParallelFor([1, 2, 3]) as item:
            add(a=item)

    run_pipeline(loop, on_event=lambda event: print(type(event).__name__))
    assert (builtins.print, logging.getLogger().handlers[:], logging.getLogger().level, sys.stdout) == before
    printed = capfd.readouterr()
    assert sorted(printed.out.split()) == ["StepFinished"] * 3 + ["StepStarted"] * 3
    assert printed.err == ""


def test_an_error_of_the_library_is_told_in_its_own_words_and_its_traceback_logged() -> None:
    with pytest.raises(RunFailed) as failed:
        run_pipeline(one(refuse, message="column 'age' is missing"))
    step = failed.value.report.steps[0]
    assert str(failed.value) == "step refuse failed: column 'age' is missing"
    assert (step.state, step.error, step.error_type) == ("failed", "column 'age' is missing", "DataError")
    log = step.log.read_text()
    assert log.endswith("longshore.errors.DataError: column 'age' is missing\n")
    assert "forkserver" not in log


def test_any_other_error_is_told_with_its_type_and_the_log() -> None:
    with pytest.raises(RunFailed, match=r"step divide failed: ZeroDivisionError: division by zero \(see .*divide.log"):
        run_pipeline(one(divide, a=1))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("os._exit", "exit status 7: going"),
        ("sys.exit", "exit status 5: going"),
        ("SIGKILL", "ended by SIGKILL, as the system does to a process when memory runs out"),
        ("SIGSEGV", "ended by SIGSEGV"),
    ],
)
def test_a_step_that_dies_is_told_by_how_it_died(how: str, told: str) -> None:
    with pytest.raises(RunFailed, match=told) as failed:
        run_pipeline(one(leave, how=how))
    assert "going" in failed.value.report.steps[0].log.read_text()


def test_steps_after_a_failure_are_skipped_and_the_exit_task_still_runs(tmp_path: Path) -> None:
    target = tmp_path / "note"

    @dsl.pipeline(name="guarded")
    def guarded(path: str):
        told = note(path=path)
        with dsl.ExitHandler(told):
            bad = divide(a=1)
            add(a=2).after(bad)

    with pytest.raises(RunFailed, match="step divide failed") as failed:
        run_pipeline(guarded, {"path": str(target)})
    assert target.read_text().startswith("FAILED")
    assert failed.value.report.skipped == ("add",)
    assert [(s.name, s.state) for s in failed.value.report.steps] == [("divide", "failed"), ("note", "succeeded")]


def test_a_failed_iteration_fails_the_run() -> None:
    @dsl.pipeline(name="loop")
    def loop():
        with dsl.ParallelFor(["a", "b"]) as item:
            refuse(message=item)

    with pytest.raises(RunFailed, match=r"step for-loop-[0-9]+-iteration-[01]/refuse failed: [ab]"):
        run_pipeline(loop)


def test_a_step_is_tried_again_as_often_as_it_asks(tmp_path: Path) -> None:
    @component
    def second_time(path: str):
        from pathlib import Path

        if not Path(path).exists():
            Path(path).touch()
            raise ValueError("not yet")

    @dsl.pipeline(name="again")
    def again(path: str):
        second_time(path=path).set_retry(num_retries=2, backoff_duration="0s")

    report = run_pipeline(again, {"path": str(tmp_path / "seen")})
    assert [(step.name, step.state, step.attempts) for step in report.steps] == [("second-time", "succeeded", 2)]
    assert "not yet" in report.steps[0].log.read_text()


def test_megabytes_of_output_go_to_the_log_whole() -> None:
    report = run_pipeline(one(shout, megabytes=8))
    assert report.steps[0].log.stat().st_size >= 8 << 20


def test_verbose_tells_every_line_and_logs_it_too() -> None:
    lines = []

    def on_event(event: object) -> None:
        if isinstance(event, StepOutput):
            lines.append(event.line)

    report = run_pipeline(one(shout, megabytes=2), on_event=on_event, verbose=True)
    assert lines.count("x" * 1023) == 2 * 1024
    assert report.steps[0].log.read_text().count("x" * 1023) == 2 * 1024


def test_a_background_process_with_the_output_open_does_not_hold_the_run_up() -> None:
    @component
    def daemon() -> int:
        import subprocess

        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid

    report = run_pipeline(one(daemon), verbose=True)
    os.kill(report.steps[0].outputs["Output"], signal.SIGKILL)


@ON_LINUX
def test_what_a_step_leaves_running_in_its_group_ends_with_it() -> None:
    @component
    def background() -> int:
        import subprocess

        return subprocess.Popen(["sleep", "600"]).pid

    report = run_pipeline(one(background))
    assert not alive(report.steps[0].outputs["Output"])


def test_steps_find_the_run_in_the_environment_and_their_own_variables() -> None:
    @dsl.pipeline(name="variables")
    def variables():
        first = environment(names=["LONGSHORE_RUN", "GREETING", "_KFP_RUNTIME"])
        own = environment(names=["LONGSHORE_RUN", "GREETING", "_KFP_RUNTIME"])
        own.after(first).set_env_variable("GREETING", "moin")

    report = run_pipeline(variables)
    plain, own = (step.outputs["Output"] for step in report.steps)
    assert plain["LONGSHORE_RUN"] == own["LONGSHORE_RUN"] == report.id
    assert plain["_KFP_RUNTIME"] == own["_KFP_RUNTIME"] == "true"
    assert (plain["GREETING"], own["GREETING"]) == ("", "moin")
    assert plain["python"] == own["python"] == sys.executable


def test_an_error_is_told_the_same_from_a_new_interpreter() -> None:
    @dsl.pipeline(name="own")
    def own():
        refuse(message="no").set_env_variable("A", "b")

    with pytest.raises(RunFailed, match=r"^step refuse failed: no$"):
        run_pipeline(own)


def test_variables_that_libraries_read_when_loaded_take_effect() -> None:
    @component
    def hashes() -> str:
        return str(hash("a"))

    @dsl.pipeline(name="seeded")
    def seeded():
        hashes().set_env_variable("PYTHONHASHSEED", "0")

    expected = subprocess.run(
        [sys.executable, "-c", "print(hash('a'), end='')"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert run_pipeline(seeded).steps[0].outputs == {"Output": expected}


def test_numpy_draws_differ_between_steps() -> None:
    @component
    def draw() -> float:
        import numpy as np

        return float(np.random.random())

    @dsl.pipeline(name="draws")
    def draws():
        first = draw()
        draw().after(first)

    first, second = (step.outputs["Output"] for step in run_pipeline(draws).steps)
    assert first != second


def test_libraries_that_start_threads_work_in_steps() -> None:
    @component
    def compute(before: float) -> float:
        import tempfile

        import numpy as np
        import pandas as pd
        from lightgbm import LGBMClassifier
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from xgboost import XGBClassifier

        frame = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 8)))
        frame.columns = [f"c{i}" for i in range(8)]
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            frame.to_parquet(file.name)
            frame = pd.read_parquet(file.name)
        target = frame["c0"] @ frame["c1"] + frame["c2"] > frame["c2"].median()
        for model in (
            HistGradientBoostingClassifier(max_iter=3),
            RandomForestClassifier(n_estimators=4, n_jobs=2),
            XGBClassifier(n_estimators=3, n_jobs=2),
            LGBMClassifier(n_estimators=3, n_jobs=2, verbose=-1),
        ):
            model.fit(frame, target)
        return before + float(model.score(frame, target))

    @dsl.pipeline(name="computing")
    def computing() -> float:
        return compute(before=compute(before=0.0).output).output

    assert run_pipeline(computing).outputs["Output"] > 0.5


def test_python3_in_values_and_paths_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "python3" / "home"))

    @dsl.pipeline(name="files")
    def files(text: str) -> str:
        return read(made=write(text=text).outputs["made"]).output

    assert run_pipeline(files, {"text": "/usr/bin/python3"}).outputs == {"Output": "/usr/bin/python3"}


def python_whose_pip_does(folder: Path, work: str) -> Path:
    """An interpreter in which ``-m pip`` runs a line of shell."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\ncase "$*" in *"-m pip"*) {work};; esac\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return program


def test_a_component_that_installs_packages_is_run_as_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "python"
    record.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$*" in *pip*) exit 0;; esac\nexec {sys.executable} "$@"\n'
    )
    record.chmod(0o755)

    @dsl.component(base_image="python:3.11", packages_to_install=["left-pad"], install_kfp_package=False)
    def installs(a: int) -> int:
        return a + 1

    monkeypatch.setattr(sys, "executable", str(record))
    report = run_pipeline(one(installs, a=1))
    assert report.steps[0].outputs == {"Output": 2}
    assert any("pip install" in call and "left-pad" in call for call in (tmp_path / "calls").read_text().splitlines())


def test_a_failing_command_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "python"
    record.write_text(
        f'#!/bin/sh\ncase "$*" in *pip*) echo no network >&2; exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    record.chmod(0o755)

    @dsl.component(base_image="python:3.11", packages_to_install=["left-pad"], install_kfp_package=False)
    def installs(a: int) -> int:
        return a + 1

    monkeypatch.setattr(sys, "executable", str(record))
    with pytest.raises(RunFailed, match="exit status 3: no network"):
        run_pipeline(one(installs, a=1))


def test_a_container_component_is_refused_with_kfps_reason() -> None:
    @dsl.container_component
    def container():
        return dsl.ContainerSpec(image="alpine", command=["true"])

    with pytest.raises(RunFailed, match="only supports running Lightweight Python Components"):
        run_pipeline(one(container))


def test_a_condition_that_cannot_be_evaluated_is_warned_of() -> None:
    @component
    def say() -> str:
        return "it's"

    @dsl.pipeline(name="quoted")
    def quoted():
        with dsl.If(say().output == "x"):
            add(a=1)

    report = run_pipeline(quoted)
    assert report.skipped == ("add",)
    assert any("Condition evaluation failed" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"a": 1, "c": 2}, r"no parameter 'c': there is a"),
        ({}, r"needs a value for a"),
        ({"a": "x"}, r"parameter 'a': 'x' is not of its type Integer"),
        ({"a": None}, r"needs a value for a"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(arguments: dict, told: str, tmp_path: Path) -> None:
    @dsl.pipeline(name="taking")
    def taking(a: int):
        add(a=a)

    with pytest.raises(ConfigError, match=told):
        run_pipeline(taking, arguments)
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set LONGSHORE_HOME"):
        run_pipeline(one(add, a=1))


def test_an_unknown_kfp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp.local import subprocess_task_handler

    monkeypatch.delattr(subprocess_task_handler, "run_local_subprocess")
    with pytest.raises(ConfigError, match=r"has no kfp.*\.run_local_subprocess.*install kfp"):
        run_pipeline(one(add, a=1))


def test_an_error_in_the_callback_ends_the_run() -> None:
    undone = []

    def on_event(event: object) -> None:
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        run_pipeline(one(add, a=1), on_event=on_event, undo=undone.append)
    assert len(undone) == 1


def test_the_helper_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @component
    def kill_the_helper():
        import os
        import signal
        from pathlib import Path

        helper = int(Path(f"/proc/{os.getppid()}/stat").read_text().split()[3])
        os.kill(helper, signal.SIGKILL)

    @dsl.pipeline(name="unlucky")
    def unlucky():
        first = kill_the_helper()
        add(a=1).after(first)

    if sys.platform != "linux":
        pytest.skip("reads /proc")
    with pytest.raises(
        RunFailed, match="step add failed: the process that starts steps is gone, it may have been killed"
    ):
        run_pipeline(unlucky)


# ------------------------------------------------------------------------- the end of the calling process

SCRIPT = """
import sys
from kfp import dsl
from longshore.authoring import component
from longshore.runner import run_pipeline

@component
def hang(port: int):
    import os, signal, socket, subprocess, time
    child = subprocess.Popen(["sleep", "600"])
    with socket.create_connection(("127.0.0.1", port)) as told:
        told.sendall(f"{os.getpid()} {child.pid}\\n".encode())
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            told.sendall(b"tidied up\\n")
            raise

@dsl.pipeline(name="hanging")
def hanging(port: int):
    with dsl.ParallelFor([1, 2, 3]) as item:
        hang(port=port)

try:
    run_pipeline(hanging, {"port": int(sys.argv[1])}, undo=lambda run: print("undo", run, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Hanging:
    """A process that runs a pipeline whose steps hang."""

    def __init__(self, folder: Path) -> None:
        script = folder / "hanging.py"
        script.write_text(textwrap.dedent(SCRIPT))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(60)
        port = str(self.listener.getsockname()[1])
        self.process = subprocess.Popen(
            [sys.executable, str(script), port], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        # kfp runs two iterations at a time
        self.steps = [self._accept() for _ in range(2)]
        self.pids = [int(pid) for step in self.steps for pid in step.readline().split()]

    def _accept(self) -> TextIO:
        connection, _ = self.listener.accept()
        with connection:
            return connection.makefile("r")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for step in self.steps:
            step.close()
        self.listener.close()


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    run = Hanging(tmp_path)
    yield run
    run.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@ON_LINUX
def test_ctrl_c_lets_steps_tidy_up_ends_them_and_has_them_undone(hanging: Hanging) -> None:
    hanging.process.send_signal(signal.SIGINT)
    printed, _ = hanging.process.communicate(timeout=60)
    assert [line.split()[0] for line in printed.splitlines()] == ["undo", "interrupted"]
    assert printed.split()[1].startswith("hanging-")
    assert [step.read() for step in hanging.steps] == ["tidied up\n"] * 2
    assert not any(alive(pid) for pid in hanging.pids)


@ON_LINUX
def test_steps_end_when_the_process_that_runs_the_pipeline_is_killed(hanging: Hanging) -> None:
    hanging.process.kill()
    hanging.process.wait()
    for step in hanging.steps:
        # read to the end: the step has been interrupted and its socket is closed
        assert step.read() == "tidied up\n"
    for pid in hanging.pids:
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)
