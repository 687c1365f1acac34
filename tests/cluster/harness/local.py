"""Servers that the runtime of this machine has started, and clients of theirs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import requests

from harness.penguins import ROW

__all__ = ["Clients", "alive", "pids"]


def alive(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(home: Path) -> list[int]:
    """Server processes that work for this home, whatever the state says."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"longshore.serving" in command and os.fsencode(home) in command and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


class Clients:
    """Clients that ask all the time and never retry.

    Args:
        url: Base URL of a service with a model of penguins.
        count: How many.
        keep: Whether every second one keeps its connection; the others open a new one for each request.

    Attributes:
        answers: What was answered, in order.
        failures: What went wrong.
    """

    def __init__(self, url: str, count: int = 4, *, keep: bool = True) -> None:
        self.url = f"{url}/v1/models/penguins:predict"
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(keep and number % 2 == 0,)) for number in range(count)
        ]

    def _ask(self, keep: bool) -> None:
        session = requests.Session()
        session.trust_env = False
        session.headers["Connection"] = "keep-alive" if keep else "close"
        while not self._stop.is_set():
            try:
                response = session.post(self.url, json={"instances": [ROW]}, timeout=10)
                response.raise_for_status()
                self.answers.append(response.json()["predictions"][0])
            except requests.RequestException as error:
                self.failures.append(repr(error))
        session.close()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
