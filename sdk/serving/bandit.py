"""A multi-armed bandit that learns from rewards which of several answers best, and an average of answers.

Plain arithmetic; what Seldon's microservice makes of it is :mod:`longshore.serving.seldon_router`.

Source of the method: R. S. Sutton and A. G. Barto, Reinforcement Learning: An Introduction, 2nd edition, sections 2.2
to 2.4 (action values as sample averages, epsilon-greedy selection).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from longshore.errors import InputError, InvalidValue

__all__ = ["EpsilonGreedy", "State", "average"]

_FEWEST: Final = 2


class State(Protocol):
    """Numbers by place: a list, or an array in shared memory."""

    def __getitem__(self, place: int, /) -> Any:
        """The number there."""
        ...

    def __setitem__(self, place: int, value: float, /) -> None:
        """Put another one there."""
        ...


class EpsilonGreedy:
    """Chooses the branch with the best average reward, and now and then another one by chance.

    A branch without a reward yet has an average of 0. Of several that are equally good, ``best_branch`` is taken if it
    is among them, else one by chance.

    Args:
        branches: How many there are.
        epsilon: Probability of taking one of the others, all equally likely; from 0 to 1.
        best_branch: The one that is held for best until rewards say otherwise, from 0 on.
        seed: Makes the choices repeatable.
        state: Where counts and sums of rewards are kept, two numbers for each branch: shared memory makes several
            processes learn together. None keeps them here.

    Raises:
        InvalidValue: If an argument is not valid.
    """

    def __init__(
        self,
        branches: int,
        *,
        epsilon: float = 0.1,
        best_branch: int | None = None,
        seed: int | None = None,
        state: State | None = None,
    ) -> None:
        if isinstance(branches, bool) or not isinstance(branches, int) or branches < _FEWEST:
            raise InvalidValue("branches", branches, "there are two or more to choose from")
        if isinstance(epsilon, (bool, str)) or not 0 <= epsilon <= 1:
            raise InvalidValue("epsilon", epsilon, "use a number from 0 to 1")
        if best_branch is not None and (not isinstance(best_branch, int) or not 0 <= best_branch < branches):
            raise InvalidValue("best_branch", best_branch, f"use a whole number from 0 to {branches - 1}")
        self.branches, self.epsilon, self._first = branches, epsilon, best_branch
        self._random = random.Random(seed)  # noqa: S311 - nothing to guess here
        self._state: State = [0.0] * (2 * branches) if state is None else state

    def choose(self) -> int:
        """The branch for a request."""
        best = self._best()
        if self._random.random() >= self.epsilon:
            return best
        others = [branch for branch in range(self.branches) if branch != best]
        return self._random.choice(others)

    def learn(self, branch: int, reward: float) -> None:
        """Take a reward for an answer of a branch into account.

        Args:
            branch: The branch that the request went to.
            reward: What the answer was worth; any finite number.

        Raises:
            InputError: If there is no such branch, or the reward is not finite.
        """
        if not 0 <= branch < self.branches:
            raise InputError(f"there is no branch {branch}: they are 0 to {self.branches - 1}")
        if not math.isfinite(reward):
            raise InputError(f"a reward is a finite number, and this one is {reward}")
        self._state[2 * branch] += 1
        self._state[2 * branch + 1] += reward

    @property
    def counts(self) -> list[int]:
        """How many rewards came for each branch."""
        return [int(self._state[2 * branch]) for branch in range(self.branches)]

    @property
    def averages(self) -> list[float]:
        """Average reward of each branch, 0 where none came."""
        sums = [self._state[2 * branch + 1] for branch in range(self.branches)]
        return [total / count if count else 0.0 for total, count in zip(sums, self.counts, strict=True)]

    def _best(self) -> int:
        averages = self.averages
        largest = max(averages)
        equal = [branch for branch, average in enumerate(averages) if average == largest]
        return self._first if self._first in equal else self._random.choice(equal)


def average(answers: Sequence[Any]) -> NDArray[np.float64]:
    """The average of several answers, number by number.

    Args:
        answers: Arrays of one shape.

    Raises:
        InputError: If there are none, they have different shapes, or they are no numbers.
    """
    if not answers:
        raise InputError("there is no answer to average")
    try:
        arrays = [np.asarray(answer, dtype=np.float64) for answer in answers]
    except (TypeError, ValueError) as error:
        raise InputError(
            "answers that are no numbers have no average: have the models answer with probabilities"
        ) from error
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1:
        raise InputError(f"answers of different shapes have no average: {', '.join(map(str, shapes))}")
    averaged: NDArray[np.float64] = np.mean(arrays, axis=0)
    return averaged
