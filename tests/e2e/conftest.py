"""Whole pipelines through the command line, each test in a home of its own. Starts real servers and ends them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import requests

ROOT = Path(__file__).parents[2]
PENGUINS = ROOT / "examples" / "data" / "penguins.csv"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    def step(self, name: str) -> dict[str, Any]:
        return next(step for step in self.json["steps"] if step["name"] == name)


@dataclass
class Longshore:
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: Any) -> list[str]:
        return [sys.executable, "-m", "longshore.cli", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LONGSHORE_HOME": str(self.home), "NO_COLOR": "1", **self.env}

    def __call__(self, *arguments: Any, cwd: Path | None = None) -> Result:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
            cwd=cwd or self.home.parent,
            timeout=240,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def run(self, *, data: Path = PENGUINS, target: str = "species", name: str = "penguins", **settings: Any) -> Result:
        given = {"data": data, "target": target, "name": name, **settings}
        pairs = [
            f"{key}={value if isinstance(value, (str, Path)) else json.dumps(value)}" for key, value in given.items()
        ]
        return self("run", "train_and_deploy", "--local", "--json", *(x for pair in pairs for x in ("--set", pair)))

    def servers(self) -> list[dict[str, Any]]:
        """Servers, without those that are on their way out."""
        listed = self("local", "ls", "--json").json["servers"]
        return [server for server in listed if server["state"] != "draining"]


@pytest.fixture
def longshore(tmp_path: Path) -> Iterator[Longshore]:
    runner = Longshore(tmp_path / "home")
    yield runner
    stopped = runner("local", "stop", "--all")
    assert stopped.code == 0, stopped.err


class Load:
    """Clients that go on asking: one that keeps its connection, one that opens a new one each time. None retries."""

    def __init__(self, url: str, row: dict[str, Any]) -> None:
        self.url, self.row = url, row
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(keep,)) for keep in (True, True, False)]

    def _ask(self, keep: bool) -> None:
        session = requests.Session()
        session.trust_env = False
        while not self._stop.is_set():
            try:
                response = session.post(self.url, json={"instances": [self.row]}, timeout=10)
                if response.status_code == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"{response.status_code}: {response.text[:200]}")
            except requests.RequestException as error:
                self.failures.append(repr(error))
            if not keep:
                session.close()
                session = requests.Session()
                session.trust_env = False
        session.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def clients() -> type[Load]:
    """``with clients(url, row) as load:`` asks for as long as the block lasts."""
    return Load
