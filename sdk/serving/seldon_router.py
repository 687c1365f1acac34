"""Nodes of a Seldon graph that longshore brings: a bandit that learns from rewards, and an average.

``seldon-core-microservice longshore.serving.seldon_router.EpsilonGreedy --service-type ROUTER`` and
``...AverageCombiner --service-type COMBINER`` run them, in the image of :mod:`longshore.serving.seldon_app`.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge
from seldon_core.proto import prediction_pb2
from seldon_core.utils import array_to_grpc_datadef

from longshore.errors import InvalidValue
from longshore.serving import bandit
from longshore.serving.seldon_hooks import complete, deployed, refusals

__all__ = ["AverageCombiner", "EpsilonGreedy"]

_log = logging.getLogger("longshore.serving")


class EpsilonGreedy:
    """Sends each request to the child with the best average reward, and some to another: ``longshore.serving.bandit``.

    Rewards come as Seldon's feedback, whose response says where the request went. All workers of the pod learn
    together, over REST and gRPC. What was learnt ends with the pod, and pods do not share it.

    Args:
        branches: Names of the children, in their order, with commas between them.
        epsilon: Probability of taking one of the others.
        best_branch: Number of the child that is held for best until rewards say otherwise, from 0 on.
        seed: Makes the choices repeatable.
        unknown: Refused.

    Raises:
        InvalidValue: If a parameter is unknown or not valid.
    """

    def __init__(
        self,
        branches: str,
        epsilon: float = 0.1,
        best_branch: int | None = None,
        seed: int | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise InvalidValue("parameters", ", ".join(unknown), "there is branches, epsilon, best_branch, seed")
        complete()
        self._names = str(branches).split(",")
        self._unit = deployed().get("unit", "")
        # made before the microservice forks its workers
        self._shared = multiprocessing.Array("d", 2 * len(self._names))
        self._bandit = bandit.EpsilonGreedy(
            len(self._names), epsilon=epsilon, best_branch=best_branch, seed=seed, state=self._shared.get_obj()
        )
        registry = CollectorRegistry()
        self._feedback = Counter(
            "longshore_bandit_feedback", "Rewards that came for each child.", ["branch"], registry=registry
        )
        # rewards may be below 0
        self._rewards = Gauge(
            "longshore_bandit_reward", "Their sum.", ["branch"], registry=registry, multiprocess_mode="sum"
        )

    def route_raw(self, request: Any) -> Any:
        """Choose a child for a request, whatever is in it.

        Args:
            request: A ``SeldonMessage`` over gRPC, what its JSON holds over REST.

        Returns:
            The child's number, as a message of the same form.
        """
        with refusals(), self._shared:
            chosen = self._bandit.choose()
        if not isinstance(request, prediction_pb2.SeldonMessage):
            return {"data": {"ndarray": [[chosen]]}}
        return prediction_pb2.SeldonMessage(data=array_to_grpc_datadef("tensor", np.array([[chosen]])))

    def send_feedback_raw(self, feedback: prediction_pb2.Feedback) -> prediction_pb2.SeldonMessage:
        """Learn from a feedback; one whose response does not say where the request went is left out."""
        routing = feedback.response.meta.routing
        if self._unit not in routing:
            _log.warning("a feedback was left out: its response names no child in meta.routing[%r]", self._unit)
            return prediction_pb2.SeldonMessage()
        branch = routing[self._unit]
        with refusals(), self._shared:
            self._bandit.learn(branch, feedback.reward)
        self._feedback.labels(self._names[branch]).inc()
        self._rewards.labels(self._names[branch]).inc(feedback.reward)
        return prediction_pb2.SeldonMessage()

    def health_status(self) -> dict[str, float]:
        """The children's average rewards."""
        with self._shared:
            return dict(zip(self._names, self._bandit.averages, strict=True))


class AverageCombiner:
    """Answers with the average of what the children answer: ``longshore.serving.bandit.average``.

    Args:
        unknown: Refused.

    Raises:
        InvalidValue: If a parameter is given.
    """

    def __init__(self, **unknown: Any) -> None:
        if unknown:
            raise InvalidValue("parameters", ", ".join(unknown), "there is none")
        complete()
        self._names: list[str] = []

    def aggregate(self, answers: Sequence[Any], names: Sequence[Sequence[str]]) -> NDArray[Any]:
        """The average.

        Args:
            answers: One array of each child.
            names: Names of their columns.
        """
        with refusals():
            averaged = bandit.average(answers)
        self._names = list(names[0])
        return averaged

    def class_names(self) -> list[str]:
        """Those of the first child's answer."""
        return self._names
