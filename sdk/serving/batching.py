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
from longshore.serving.protocol import RequestError

__all__ = ["WAITING", "BatchQueue"]

WAITING: Final = 4096
"""At most so many requests wait for the model, unless another number is given; more are told to come again."""

_INLINE_SECONDS: Final = 0.005
"""A model that is faster is asked in the loop itself: a thread would cost more than it saves."""


class BatchQueue:
    """Has whatever waits predicted in one call, as soon as the model is free; nobody waits for company.

    For one event loop, from within it.

    Args:
        predictor: The model.
        waiting: At most so many requests wait.
    """

    def __init__(self, predictor: Predictor, *, waiting: int = WAITING) -> None:
        self._predictor, self._limit = predictor, waiting
        self._jobs: deque[tuple[Ask, asyncio.Future[Prediction]]] = deque()
        self._thread = ThreadPoolExecutor(1, "longshore-predict")
        self._under_way = False
        # how long a call lasts, as far as is known: until it is, it may be long
        self._seconds = math.inf

    async def predict(self, ask: Ask) -> Prediction:
        """Predict rows.

        Raises:
            RequestError: 503, if too many requests wait already.
            InputError: If rows do not fit the signature, or probabilities are asked for and there are none.
            ModelError: If the model fails, or what it answers is not finite.
        """
        if len(self._jobs) >= self._limit:
            raise RequestError(503, f"{self._limit} requests wait for the model already: come again in a second")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Prediction] = loop.create_future()
        self._jobs.append((ask, answer))
        if not self._under_way:
            self._under_way = True
            # not at once: what the loop has read by now comes along
            loop.call_soon(self._next)
        return await answer

    def _next(self) -> None:
        jobs = [self._jobs.popleft()]
        rows = len(jobs[0][0])
        while self._jobs and rows + len(self._jobs[0][0]) <= self._predictor.batch_rows:
            jobs.append(self._jobs.popleft())
            rows += len(jobs[-1][0])
        # whoever went away, or has no more time, is not waited for
        jobs = [(ask, answer) for ask, answer in jobs if not answer.done()]
        if not jobs:
            self._done((), ())
            return
        asks, answers = zip(*jobs, strict=True)
        if self._seconds <= _INLINE_SECONDS and not self._predictor.busy:
            self._done(answers, self._ask(asks))
            return
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._thread, self._ask, asks)
        asked.add_done_callback(lambda done: self._done(answers, done.result()))

    def _ask(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        began = time.perf_counter()
        outcomes = self._predictor.answer_all(asks)
        seconds = time.perf_counter() - began
        # quick to believe that it is slow, and slow to believe that it is quick
        self._seconds = max(seconds, (3 * min(self._seconds, 1) + seconds) / 4)
        return outcomes

    def _done(self, answers: Sequence[asyncio.Future[Prediction]], outcomes: Sequence[Prediction | Exception]) -> None:
        for answer, outcome in zip(answers, outcomes, strict=True):
            if answer.done():
                # its client went away
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        self._under_way = bool(self._jobs)
        if self._jobs:
            asyncio.get_running_loop().call_soon(self._next)
