"""The command's frame: exit status, messages, lazy commands."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from longshore.cli import app, doctor
from longshore.errors import ConfigError, DataError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """A function that makes ``longshore doctor`` raise an error."""

    def install(error: BaseException) -> None:
        @click.command()
        @app.debug_option
        def command() -> None:
            raise error

        monkeypatch.setattr(doctor, "doctor", command)

    return install


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("not like this"), 2, "longshore: not like this\n"),
        (DataError("column 'a' is missing"), 1, "longshore: column 'a' is missing\n"),
        (RuntimeError("oops"), 1, "longshore: RuntimeError: oops\n(--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_an_error_is_one_message_and_a_status(failing, error, status, told, capsys) -> None:
    failing(error)
    assert app.run(["doctor"]) == status
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback(failing, words, capsys) -> None:
    failing(DataError("column 'a' is missing"))
    assert app.run(words) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nope"], "No such command 'nope'"),
        (["run"], "Missing argument 'NAME'"),
        (["run", "train_and_deploy"], "--local or --host"),
        (["run", "train_and_deploy", "--local", "--host", "http://x"], "--local or --host"),
        (["run", "train_and_deploy", "--local", "--namespace", "x"], "go with --host"),
        (["run", "train_and_deploy", "--local", "--no-wait"], "go with --host"),
        (["run", "train_and_deploy", "--host", "http://x", "--verbose"], "goes with --local"),
        (["run", "train_and_deploy", "--host", "http://x", "--timeout-seconds", "3"], "goes with --wait"),
        (["local", "stop", "a", "--all"], "--all"),
        (["compile", "train_and_deploy"], "Missing option '-o'"),
    ],
)
def test_wrong_use_is_told_with_status_2(words: list[str], told: str, capsys) -> None:
    assert app.run(words) == 2
    assert told in capsys.readouterr().err


def test_help_lists_the_commands(capsys) -> None:
    assert app.run(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in ("run", "pipelines", "components", "compile", "local", "doctor"):
        assert f"\n  {name} " in printed


def test_the_version_is_told_without_loading_kfp() -> None:
    code = (
        "import sys; from longshore.cli.app import run; status = run(['--version'])\n"
        "assert not {'kfp', 'rich', 'pandas'} & set(sys.modules), sys.modules; raise SystemExit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("longshore 0.")


def test_doctor_tells_what_is_missing_and_how_to_get_it(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    find_spec = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "xgboost" else find_spec(name))
    assert app.run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in told["checks"]}
    assert told["ok"] is True
    assert found["git"]["found"] is None
    assert found["extra xgboost"]["remedy"] == "pip install 'longshore[xgboost]' (xgboost missing)"
    assert found["kubeconfig"]["found"] is None
    assert app.run(["doctor"]) == 0
    assert "missing  extra xgboost" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["2.16.0", "3.0.0"])
def test_doctor_fails_if_the_core_is_broken(version, monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda _: version)
    assert app.run(["doctor"]) == 1
    assert "BROKEN   kfp" in capsys.readouterr().out
