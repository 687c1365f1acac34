"""A bounded queue, and the thread that empties it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

__all__ = ["Unavailable", "Writer"]

_LINGER_SECONDS: Final = 0.25
"""What comes within so long after the first is written together with it."""

_RETRY_SECONDS: Final = (1.0, 30.0)

_log = logging.getLogger("longshore.serving")

Item = TypeVar("Item")


class Unavailable(Exception):
    """Nothing can be written for now: it is tried again."""


class Writer(Generic[Item]):
    """Has items written in batches by a thread of its own. What does not fit into the queue is dropped.

    Args:
        name: What the items are, for the log.
        write: Writes a batch, and gives how many it had to drop. It raises :class:`Unavailable` if it is to be tried
            again.
        size: Bytes that an item takes.
        count: Told how many were written, and how many dropped.
        items: At most so many wait.
        bytes_: At most so many bytes of them.
        batch: At most so many are written together.
        maintain: Called now and then, between batches; may raise :class:`Unavailable`.
        maintain_seconds: How often.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], int],
        *,
        size: Callable[[Item], int],
        count: Callable[[int, int], None],
        items: int = 10_000,
        bytes_: int = 32 * 1024 * 1024,
        batch: int = 500,
        maintain: Callable[[], None] = lambda: None,
        maintain_seconds: float = 600.0,
        retry_seconds: tuple[float, float] = _RETRY_SECONDS,
    ) -> None:
        self._name, self._write, self._size, self._count = name, write, size, count
        self._items, self._bytes, self._batch = items, bytes_, batch
        self._maintain, self._maintain_seconds = maintain, maintain_seconds
        self._retry_seconds = retry_seconds
        self._queue: deque[Item] = deque()
        self._held = 0
        self._news = threading.Condition()
        self._ending = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=f"writer of {name}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Have an item written some time; returns at once."""
        size = self._size(item)
        with self._news:
            fits = not self._ending and len(self._queue) < self._items and self._held + size <= self._bytes
            if fits:
                self._queue.append(item)
                self._held += size
                if len(self._queue) in (1, self._batch):
                    self._news.notify()
        if not fits:
            self._count(0, 1)

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for as long as that takes or the time lasts; the rest is dropped."""
        with self._news:
            self._ending = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with self._news:
            dropped = len(self._queue)
            self._queue.clear()
        if dropped:
            self._count(0, dropped)
            _log.warning("%d %s were not written before the end", dropped, self._name)

    def _run(self) -> None:
        due = time.monotonic()
        pause = self._retry_seconds[0]
        while True:
            batch = self._next(due)
            try:
                if batch:
                    self._done(batch, self._write(batch))
                if time.monotonic() >= due:
                    due = time.monotonic() + self._maintain_seconds
                    self._maintain()
            except Exception as error:  # noqa: BLE001 - the thread must go on
                if not isinstance(error, Unavailable):
                    _log.exception("writing %s failed", self._name)
                    self._done(batch, len(batch))
                elif not self._failing:
                    self._failing = True
                    _log.warning("%s cannot be written for now, and are answered: %s", self._name, error)
                if self._wait(pause):
                    return
                pause = min(2 * pause, self._retry_seconds[1])
                continue
            pause = self._retry_seconds[0]
            if batch and self._failing:
                self._failing = False
                _log.info("%s are written again", self._name)
            if self._ending and not self._queue:
                return

    def _next(self, due: float) -> Sequence[Item]:
        """The next batch; it stays in the queue until it is written. Empty if it is time for something else."""
        with self._news:
            self._news.wait_for(lambda: self._queue or self._ending, timeout=max(0.0, due - time.monotonic()))
            if self._queue:
                self._news.wait_for(lambda: self._ending or len(self._queue) >= self._batch, timeout=_LINGER_SECONDS)
            return [self._queue[index] for index in range(min(self._batch, len(self._queue)))]

    def _done(self, batch: Sequence[Item], dropped: int) -> None:
        with self._news:
            for _ in range(min(len(batch), len(self._queue))):
                self._held -= self._size(self._queue.popleft())
        self._count(len(batch) - dropped, dropped)

    def _wait(self, seconds: float) -> bool:
        with self._news:
            return self._news.wait_for(lambda: self._ending, timeout=seconds)
