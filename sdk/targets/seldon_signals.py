"""What Prometheus is asked about the revisions of a SeldonDeployment: pure.

Requests and errors are what Seldon's executor counts, by predictor. Rewards are what longshore's server counts, by the
revision whose answer they are for. Where another server is behind it, they are Seldon's, which leaves zeros out and
takes every feedback for the predictor that it came to: there, feedback must be sent to the revision's own address, and
how many there were is what the executor counts.

Sources: SeldonIO/seldon-core v1.18.2, executor/api/metric, python/seldon_core/metrics.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from longshore.errors import InvalidValue

__all__ = ["REVISION_OF_SERIES", "experiment_queries"]

REVISION_OF_SERIES: Final = "predictor_version"
"""The label that bears the revision."""

_SERVER: Final = "seldon_api_executor_server_requests_seconds_count"
# over gRPC the service is the full name of the method
_PREDICTIONS: Final = "predictions|/.*(Predict|ModelInfer)"
_FEEDBACK: Final = "feedback|/.*SendFeedback"
# over gRPC the code is its name; what is the client's fault is no error
_ERRORS: Final = "5..|Unknown|DeadlineExceeded|Internal|Unavailable|DataLoss|ResourceExhausted|Unimplemented|Aborted"
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def experiment_queries(
    name: str, revisions: Sequence[str], window_seconds: int, *, matchers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """PromQL for ``requests``, ``errors``, ``rewards`` (how many) and ``reward_sum``, each by revision.

    Args:
        name: Name of the SeldonDeployment.
        revisions: The revisions.
        window_seconds: How far back to look.
        matchers: Further labels that series have to have, such as the namespace, where it is scraped into one.

    Raises:
        InvalidValue: If a matcher has no label's name.
    """
    for label in matchers or {}:
        if not _LABEL.fullmatch(label):
            raise InvalidValue("matchers key", label, "use the name of a label of Prometheus")
    exact = [f"{label}={_quoted(value)}" for label, value in (matchers or {}).items()]

    def rise(metric: str, of: Sequence[str] = (), **labels: str) -> str:
        """By how much a counter has risen in the window, exactly: what begins in it counts from 0."""
        patterns = {**labels, REVISION_OF_SERIES: "|".join(revisions)}
        given = ", ".join([*of, *exact, *(f"{label}=~{_quoted(value)}" for label, value in patterns.items())])
        series = f"{metric}{{{given}}}"
        highest = f"max_over_time({series}[{window_seconds}s])"
        before = f"{series} offset {window_seconds}s or 0 * {highest}"
        return f"sum by ({REVISION_OF_SERIES}) ({highest} - ({before}))"

    deployment = [f"deployment_name={_quoted(name)}"]
    ours = rise("longshore_feedback_total")
    rewards, penalties = (rise(f"longshore_feedback_{one}_total") for one in ("reward", "penalty"))
    return {
        "requests": rise(_SERVER, deployment, service=_PREDICTIONS),
        "errors": rise(_SERVER, deployment, service=_PREDICTIONS, code=_ERRORS),
        "rewards": f"{ours} or {rise(_SERVER, deployment, service=_FEEDBACK)}",
        "reward_sum": f"({rewards} - {penalties}) or {rise('seldon_api_model_feedback_reward_total', deployment)}",
    }


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
