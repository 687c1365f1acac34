"""The requests of one event loop, predicted together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from longshore.serving.core import Ask, Prediction, Predictor
from longshore.serving.refusals import RequestError
from longshore.serving.together import take_batch

__all__ = ["WAITING", "BatchQueue"]

WAITING: Final = 4096
"""At most so many requests wait for the model, unless another number is given; more are told to come again."""

_INLINE_SECONDS: Final = 0.005
"""A model that is faster is asked in the loop itself: a thread would cost more than it saves."""


_Job = tuple[Ask, "asyncio.Future[Prediction]", float]
"""What is asked, where the answer goes, and since when it waits, by the loop's clock."""


class BatchQueue:
    """Has whatever waits predicted in one call, as soon as the model is free; nobody waits for company.

    For one event loop, from within it.

    Args:
        predictor: The model.
        waiting: At most so many requests wait.
        seconds: How long a request may wait for its prediction.
    """

    def __init__(self, predictor: Predictor, *, waiting: int = WAITING, seconds: float = math.inf) -> None:
        self._predictor, self._limit, self._patience = predictor, waiting, seconds
        self._jobs: deque[_Job] = deque()
        self._thread = ThreadPoolExecutor(1, "longshore-predict")
        self._under_way = False
        self._asked: Sequence[_Job] = ()
        self._timer: asyncio.TimerHandle | None = None
        # how long a call lasts, as far as is known: until it is, it may be long
        self._seconds = math.inf

    async def predict(self, ask: Ask) -> Prediction:
        """Predict rows.

        Raises:
            RequestError: 503, if too many requests wait already.
            InputError: If rows do not fit the signature, or probabilities are asked for and there are none.
            ModelError: If the model fails, or what it answers is not finite.
            TimeoutError: If there is no answer in time.
        """
        if len(self._jobs) >= self._limit:
            raise RequestError(503, f"{self._limit} requests wait for the model already: come again in a second")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Prediction] = loop.create_future()
        self._jobs.append((ask, answer, loop.time()))
        if not self._under_way:
            self._under_way = True
            # not at once: what the loop has read by now comes along
            loop.call_soon(self._next)
        return await answer

    def _next(self) -> None:
        taken = take_batch(self._jobs, lambda job: job[0], self._predictor.batch_rows)
        # whoever went away, or has no more time, is not waited for
        jobs = [job for job in taken if not job[1].done()]
        asks = [ask for ask, _, _ in jobs]
        if self._seconds <= _INLINE_SECONDS and not self._predictor.busy:
            self._done(jobs, self._ask(asks))
            return
        loop = asyncio.get_running_loop()
        self._asked = jobs
        if self._timer is None and self._patience < math.inf:
            self._end_late()
        asked = loop.run_in_executor(self._thread, self._ask, asks)
        asked.add_done_callback(lambda done: self._done(jobs, done.result()))

    def _end_late(self) -> None:
        """End what has waited too long, and look again when the next one will have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        waiting = [job for job in (*self._asked, *self._jobs) if not job[1].done()]
        for _, answer, since in waiting:
            if loop.time() - since >= self._patience:
                answer.set_exception(TimeoutError())
        if left := [since for _, answer, since in waiting if not answer.done()]:
            self._timer = loop.call_at(min(left) + self._patience, self._end_late)

    def _ask(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        began = time.perf_counter()
        outcomes = self._predictor.answer_all(asks)
        seconds = time.perf_counter() - began
        # quick to believe that it is slow, and slow to believe that it is quick
        self._seconds = max(seconds, (3 * min(self._seconds, 1) + seconds) / 4)
        return outcomes

    def _done(self, jobs: Sequence[_Job], outcomes: Sequence[Prediction | Exception]) -> None:
        for (_, answer, _), outcome in zip(jobs, outcomes, strict=True):
            if answer.done():
                # its client went away
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        self._under_way = bool(self._jobs)
        self._asked = ()
        if self._jobs:
            asyncio.get_running_loop().call_soon(self._next)
