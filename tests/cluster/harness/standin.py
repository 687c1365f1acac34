"""What stands in for a controller that comes as an image only: looks again and again, and does what is to be done."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self

__all__ = ["StandIn"]

_SECONDS = 0.1


class StandIn(ABC):
    """Runs as long as it is entered; what it raises is raised at the end.

    Args:
        name: Name of its thread.
    """

    def __init__(self, name: str) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._failure: Exception | None = None

    @abstractmethod
    def look(self) -> None:
        """Look at everything once, and act on it."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while not self._end.wait(_SECONDS):
            try:
                self.look()
            except Exception as error:
                self._failure = error
                return
