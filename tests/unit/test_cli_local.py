"""``longshore local``, over a stand-in for the functions of the local runtime."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from longshore import local
from longshore.cli import app


@dataclass(frozen=True)
class Server:
    name: str
    state: str = "ready"
    percent: int = 100
    url: str | None = "http://127.0.0.1:8080"
    revision: str = "r-1"
    model: str = "penguins"
    version: str | None = "3"
    pid: int | None = 42
    since: str = "2024-01-01T00:00:00Z"


class Servers:
    def __init__(self) -> None:
        self.known = [
            Server("penguins"),
            Server("houses", state="stopped", percent=0, url=None, version=None, pid=None),
        ]
        self.stopped: list[str] = []


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    stand_in = Servers()
    monkeypatch.setattr(local, "list_servers", lambda: stand_in.known, raising=False)
    monkeypatch.setattr(local, "stop", stand_in.stopped.append, raising=False)
    monkeypatch.setattr(local, "log_paths", lambda name: [Path("/logs") / name], raising=False)
    return stand_in


def test_ls_is_a_table_for_people(servers, capsys) -> None:
    assert app.run(["local", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        "penguins",
        "ready",
        "100%",
        "http://127.0.0.1:8080",
        "r-1",
        "penguins",
        "3",
        "42",
        "2024-01-01T00:00:00Z",
    ]
    assert lines[2].split()[:5] == ["houses", "stopped", "0%", "-", "r-1"]


def test_ls_is_a_document_for_programs(servers, capsys) -> None:
    assert app.run(["local", "ls", "--json"]) == 0
    (first, second) = json.loads(capsys.readouterr().out)["servers"]
    assert (first["name"], first["pid"], second["url"]) == ("penguins", 42, None)


def test_ls_without_servers(servers, capsys) -> None:
    servers.known = []
    assert app.run(["local", "ls"]) == 0
    assert capsys.readouterr().out == "no servers on this machine\n"


@pytest.mark.parametrize(("words", "stopped"), [(["penguins"], ["penguins"]), (["--all"], ["houses", "penguins"])])
def test_stop_ends_one_or_all(servers, words, stopped, capsys) -> None:
    assert app.run(["local", "stop", *words]) == 0
    assert servers.stopped == stopped
    assert capsys.readouterr().out.splitlines() == [f"{name} stopped" for name in stopped]


def test_stop_without_a_name_ends_the_only_one(servers, capsys) -> None:
    assert app.run(["local", "stop"]) == 2
    assert "say which server: there is houses, penguins" in capsys.readouterr().err
    assert servers.stopped == []
    servers.known = servers.known[:1]
    assert app.run(["local", "stop"]) == 0
    assert servers.stopped == ["penguins"]
    servers.known = []
    assert app.run(["local", "stop"]) == 2
    assert "there is none" in capsys.readouterr().err


def test_stop_all_without_servers_is_no_error(servers) -> None:
    servers.known = []
    assert app.run(["local", "stop", "--all"]) == 0


@pytest.mark.parametrize("words", [["stop", "penguin"], ["logs", "penguin"], ["rollback", "penguin"]])
def test_an_unknown_server_is_told_with_the_names_that_are_near(servers, words, capsys) -> None:
    assert app.run(["local", *words]) == 2
    assert "there is no server 'penguin' on this machine: did you mean penguins?" in capsys.readouterr().err
    assert servers.stopped == []


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["penguins"], ["tail", "-n", "100", "/logs/penguins"]),
        (["penguins", "-f", "-n", "5"], ["tail", "-n", "5", "-F", "/logs/penguins"]),
    ],
)
def test_logs_are_shown_by_tail(servers, words, command, monkeypatch) -> None:
    called = []
    monkeypatch.setattr(os, "execvp", lambda program, arguments: called.append((program, arguments)))
    assert app.run(["local", "logs", *words]) == 0
    assert called == [("tail", command)]


@pytest.mark.parametrize(
    ("known", "told"), [([], "say which server: there is none"), (["a", "b"], "say which server: there is a, b")]
)
def test_logs_without_a_name_need_exactly_one_server(servers, known, told, capsys) -> None:
    servers.known = [Server(name) for name in known]
    assert app.run(["local", "logs"]) == 2
    assert told in capsys.readouterr().err


def test_the_only_server_need_not_be_named(servers, monkeypatch) -> None:
    called = []
    servers.known = [Server("only")]
    monkeypatch.setattr(os, "execvp", lambda program, arguments: called.append(arguments[-1]))
    assert app.run(["local", "logs"]) == 0
    assert called == ["/logs/only"]
