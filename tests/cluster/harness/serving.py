"""Model servers as processes, for a small model of iris."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["INFER", "IRIS", "PREDICT", "ROWS", "Asking", "ModelServer", "refused", "serving", "wait_for"]

IRIS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
"""The columns of the model."""

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
"""Rows of the classes 0 and 2."""

PREDICT, INFER = "/v1/models/iris:predict", "/v2/models/iris/infer"

_SECONDS = 60


def wait_for(found: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    """What ``found`` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return value


@dataclass
class ModelServer:
    """A server that runs.

    Args:
        process: Its process.
        url: Its address.
        log: What it says.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def enter(self) -> None:
        """Have this thread see the server's network, where that is not the machine's."""

    def get(self, path: str, **options: Any) -> requests.Response:
        """Ask with GET."""
        return requests.get(f"{self.url}{path}", timeout=30, **options)

    def post(self, path: str, content: Any = None, **options: Any) -> requests.Response:
        """Ask with POST and JSON."""
        return requests.post(f"{self.url}{path}", json=content, timeout=30, **options)

    def samples(self, name: str, **labels: str) -> list[float]:
        """Values of a metric."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def counted(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(self.samples(name, **labels))

    def children(self) -> set[int]:
        """The processes that it has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until the log says something."""
        found = wait_for(lambda: re.search(pattern, self.log.read_text()) or self.process.poll() is not None)
        assert isinstance(found, re.Match), self.log.read_text()
        return found


@contextmanager
def serving(model: Path, log: Path, *options: str, **more: Any) -> Iterator[ModelServer]:
    """Run ``python -m longshore.serving``; it has to end well.

    Args:
        model: The model directory.
        log: Where what it says goes.
        options: Further arguments.
        more: For ``Popen``.
    """
    command = [sys.executable, "-m", "longshore.serving", f"--model={model}", "--name=iris", "--revision=iris-1"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, *options], stdout=output, stderr=output, **more) as process,
    ):
        try:
            server = ModelServer(process, "", log)
            port = server.said(r"is ready on port (\d+)")[1]
            server.url = f"http://127.0.0.1:{port}"
            yield server
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()


def refused(url: str) -> bool:
    """Whether nobody listens at an address."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


class Asking:
    """Clients that ask all the time, each on a connection of its own that it keeps.

    Args:
        server: Whom.
        clients: How many.

    Attributes:
        answers: What was answered, in order.
        failures: What went wrong; a refused connection, after which a client gives up, is none.
    """

    def __init__(self, server: ModelServer, clients: int = 4) -> None:
        self._server, self._end = server, threading.Event()
        self.answers: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, answers: int) -> None:
        """Wait until there are so many more answers."""
        known = len(self.answers)
        wait_for(lambda: len(self.answers) >= known + answers)

    def _ask(self) -> None:
        tensor = {"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
        self._server.enter()
        with requests.Session() as session:
            session.trust_env = False
            while not self._end.is_set():
                try:
                    answer = session.post(f"{self._server.url}{INFER}", json={"inputs": [tensor]}, timeout=30)
                    answer.raise_for_status()
                    self.answers.append(answer.json())
                except requests.RequestException as error:
                    if "refused" in str(error):
                        return
                    self.failures.append(error)
