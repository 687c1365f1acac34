"""Rewards for answers, counted so that an experiment can be judged on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter

if TYPE_CHECKING:
    from longshore.serving.seldon_protocol import Feedback

__all__ = ["LABELS", "Rewards"]

LABELS: Final = {
    "model": "model",
    "version": "version",
    "revision": "revision",
    "predictor_name": "predictor",
    "predictor_version": "predictor_version",
}
"""Labels of what is counted, and the tags of an answer that they come from; Seldon's names where it has one."""

_OTHERS: Final = 32
"""So many others than the server itself are told apart: what clients send must not make series without end."""


class Rewards:
    """Counts rewards by who gave the answer.

    An answer's tags say who that was, and its feedback need not come back there. Requests go to a SeldonDeployment's
    predictors by chance, and so does feedback: another predictor's is counted here on its behalf, since nobody else
    sees it. Within a predictor, a graph may hand a feedback to all of its nodes, and there each counts its own.

    Args:
        registry: Where it is registered.
        tags: The tags of this server's own answers.
    """

    def __init__(self, registry: CollectorRegistry, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        self._known = {self._labels(tags)}
        self._feedback = Counter(
            "longshore_feedback", "Answers that somebody has given feedback on.", list(LABELS), registry=registry
        )
        self._rewards = Counter(
            "longshore_feedback_reward",
            "Sum of the rewards, as far as they are above 0.",
            list(LABELS),
            registry=registry,
        )
        self._penalties = Counter(
            "longshore_feedback_penalty",
            "Sum of the rewards below 0, without their sign: a counter only rises.",
            list(LABELS),
            registry=registry,
        )
        self._rows = Counter(
            "longshore_feedback_rows",
            "Rows whose true class came with the feedback, by whether it was the one predicted.",
            [*LABELS, "correct"],
            registry=registry,
        )
        self._begin(self._labels(tags))

    def count(self, feedback: Feedback) -> bool:
        """Count a feedback; whether it was, since it may be a neighbour's."""
        tags = {**self._tags, **feedback.tags} if feedback.tags else self._tags
        if self._is_neighbours(feedback.tags):
            return False
        labels = self._labels(tags)
        if labels not in self._known:
            if len(self._known) > _OTHERS:
                labels = tuple("other" for _ in LABELS)
            self._known.add(labels)
            self._begin(labels)
        self._feedback.labels(*labels).inc()
        (self._rewards if feedback.reward > 0 else self._penalties).labels(*labels).inc(abs(feedback.reward))
        for correct, rows in (("true", feedback.right), ("false", feedback.wrong)):
            self._rows.labels(*labels, correct).inc(rows)
        return True

    def _is_neighbours(self, tags: Mapping[str, str]) -> bool:
        same_predictor = tags.get("predictor") == self._tags.get("predictor")
        return "revision" in tags and same_predictor and tags["revision"] != self._tags["revision"]

    def _begin(self, labels: tuple[str, ...]) -> None:
        # a series that appears with its first value has no rise that rate() could see
        for counter in (self._feedback, self._rewards, self._penalties):
            counter.labels(*labels)
        for correct in ("true", "false"):
            self._rows.labels(*labels, correct)

    @staticmethod
    def _labels(tags: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(tags.get(tag, "") for tag in LABELS.values())
