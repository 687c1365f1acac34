"""Threads that answer requests, as few at once as keep them going.

Python runs one thread at a time. Each that is woken although another is at it costs more than a small request does:
both then pass Python's lock to and fro, at every call to the kernel. So what is ready is done by one thread after the
other, in their order, and another thread is called only when those that are at it wait for something themselves.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["BLOCKED_SECONDS", "Threads"]

BLOCKED_SECONDS: Final = 0.005
"""A thread that has been at the same work for so long is taken to wait for something."""


class Threads:
    """Threads that do what they are given; a pool of Python's wakes one for each work, and makes a future of it.

    Args:
        count: How many.
        idle: Called in a thread that finds nothing more to do.

    Attributes:
        alone: Whether what was given last was all that there was to do.
    """

    def __init__(self, count: int, idle: Callable[[], None]) -> None:
        self._count, self._idle = count, idle
        self._ready: deque[Callable[[], None]] = deque()
        # by thread, since when it is at its work
        self._at_work: dict[int, float] = {}
        # True calls a thread, False ends one
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._called = -float("inf")
        self.alone = False

    def start(self) -> None:
        """Begin."""
        for _ in range(self._count):
            threading.Thread(target=self._run, name="request").start()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done, once :meth:`provide` is called."""
        self._ready.append(work)

    @property
    def waited_for(self) -> bool:
        """Whether there is something that no thread is at."""
        return bool(self._ready)

    @property
    def busy(self) -> bool:
        """Whether any thread is at work."""
        return bool(self._at_work)

    def provide(self) -> None:
        """Call threads for what is ready, if none is there that will soon be free for it."""
        if not self._ready:
            return
        since = time.monotonic() - BLOCKED_SECONDS
        at_work = list(self._at_work.values())
        self.alone = len(self._ready) == 1 and not at_work
        if self._called < since and all(began < since for began in at_work):
            # if so many wait for something, others may as well
            self._call(max(1, len(at_work)))

    def make_way(self) -> None:
        """In a thread that is about to wait: have others go on meanwhile."""
        if self._ready:
            self._call(1)

    def pause(self) -> None:
        """In a thread that waits for more work of its own: it is not at it until :meth:`resume`."""
        self._at_work.pop(threading.get_ident(), None)

    def resume(self) -> None:
        """In a thread: it is at work again."""
        self._at_work[threading.get_ident()] = time.monotonic()

    def shutdown(self, *, wait: bool = False) -> None:  # noqa: ARG002 - it is not waited for
        """Have them end once all is done."""
        for _ in range(self._count):
            self._calls.put(False)

    def _call(self, number: int) -> None:
        self._called = time.monotonic()
        for _ in range(min(number, len(self._ready), self._count - len(self._at_work))):
            self._calls.put(True)

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._calls.get()
            # in this order: whoever looks sees that it comes, or that it is there
            self.resume()
            self._called = -float("inf")
            while True:
                self._work()
                self.pause()
                # what came before that was left to this thread
                if not self._ready:
                    break
            self._idle()

    def _work(self) -> None:
        while True:
            try:
                work = self._ready.popleft()
            except IndexError:
                return
            self.resume()
            work()
