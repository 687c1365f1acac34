"""The requests of several threads, predicted together: what :mod:`longshore.serving.batching` is for an event loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, cast

__all__ = ["Together", "take_batch"]

_SLOW_SECONDS: Final = 0.0002
"""What a request costs beside the model, about: from there on it is worth while to have others come along."""

_LONGEST_GATHER_SECONDS: Final = 0.04
"""Of a call's time, or of so much where it lasts longer, a quarter is spent at most to let others come along."""

_LOOKS: Final = 8

Ask = TypeVar("Ask", bound=Sized)
Outcome = TypeVar("Outcome")
Job = TypeVar("Job")


def take_batch(waiting: deque[Job], ask: Callable[[Job], Sized], rows: int) -> list[Job]:
    """Take what has waited longest, and as much of the rest as goes along.

    Args:
        waiting: What waits, of which there is some; the batch is taken out of it.
        ask: The rows of each.
        rows: At most so many go together; the first one goes in any case.
    """
    jobs = [waiting.popleft()]
    taken = len(ask(jobs[0]))
    while waiting and taken + len(ask(waiting[0])) <= rows:
        jobs.append(waiting.popleft())
        taken += len(ask(jobs[-1]))
    return jobs


@dataclass(slots=True, eq=False)
class _Job(Generic[Ask, Outcome]):
    """What a thread asks. It waits for ``told``: of the outcome, or that it is to ask for all who wait."""

    ask: Ask
    outcome: Outcome | Exception | None = None
    told: threading.Lock = field(default_factory=threading.Lock)


class Together(Generic[Ask, Outcome]):
    """Of the threads that ask, one leads: it asks for all who wait, tells them, and has the next one lead.

    Args:
        answer: Gives the outcome or the error of each, in their order.
        turn: Held meanwhile.
        rows: At most so many rows are asked for together.
    """

    def __init__(
        self, answer: Callable[[Sequence[Ask]], Sequence[Outcome | Exception]], turn: threading.Lock, rows: int
    ) -> None:
        self._answer, self._turn, self._rows = answer, turn, rows
        self._guard = threading.Lock()
        self._waiting: deque[_Job[Ask, Outcome]] = deque()
        self._led, self._company = False, 1
        self._seconds = 0.0

    @property
    def slow(self) -> bool:
        """Whether a call has lasted so long lately that several are better asked together."""
        return self._seconds > _SLOW_SECONDS

    @property
    def waiting(self) -> int:
        """How many wait for others to be answered."""
        return len(self._waiting)

    def ask(self, ask: Ask, seconds: float) -> Outcome:
        """Ask, and wait for the outcome.

        Args:
            ask: What is asked.
            seconds: How long to wait for other calls to end; a negative number is as long as they take.

        Raises:
            TimeoutError: If they have taken longer.
        """
        job = _Job[Ask, Outcome](ask)
        job.told.acquire()
        with self._guard:
            self._waiting.append(job)
            leads, self._led = not self._led, True
        if not leads and not job.told.acquire(timeout=seconds):
            with self._guard:
                told = job.told.acquire(blocking=False)
                if not told and job in self._waiting:
                    self._waiting.remove(job)
                    raise TimeoutError
            if not told:
                # it is at it
                job.told.acquire()
        if job.outcome is None:
            self._lead(job, seconds)
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return cast("Outcome", job.outcome)

    def _lead(self, job: _Job[Ask, Outcome], seconds: float) -> None:
        try:
            if not self._turn.acquire(timeout=seconds):
                with self._guard:
                    self._waiting.remove(job)
                raise TimeoutError
            try:
                self._gather()
                self._ask_for_all()
            finally:
                self._turn.release()
        finally:
            with self._guard:
                self._led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].told.release()

    def _gather(self) -> None:
        """Let those come along that were answered together the last time, and have just begun to ask again.

        Otherwise the first one is asked for by itself, and the others wait for all of that. Who is alone waits for
        nobody.
        """
        if not self.slow:
            return
        pause = min(self._seconds, _LONGEST_GATHER_SECONDS) / 4 / _LOOKS
        for _ in range(_LOOKS):
            if len(self._waiting) >= self._company:
                return
            time.sleep(pause)

    def _ask_for_all(self) -> None:
        with self._guard:
            jobs = take_batch(self._waiting, lambda job: job.ask, self._rows)
        self._company = len(jobs)
        began = time.perf_counter()
        try:
            outcomes = self._answer([job.ask for job in jobs])
        except Exception as error:  # noqa: BLE001 - all of them wait to be told
            outcomes = [error for _ in jobs]
        self._seconds += (time.perf_counter() - began - self._seconds) / 8
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.outcome = outcome
            job.told.release()
