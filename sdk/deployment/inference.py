"""Ask an endpoint, wherever it is: predictions, feedback, the rows of a table, and what it has served."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from longshore import client
from longshore.deployment.lookup import card_of
from longshore.errors import DeployError
from longshore.spec import Endpoint, ModelSource

if TYPE_CHECKING:
    from longshore.cluster import Session
    from longshore.monitoring import DriftReport, ServingStats

__all__ = ["ask", "observe_endpoint", "predict", "replay_table", "send_feedback"]


def predict(
    endpoint: Endpoint,
    rows: Any,
    *,
    protocol: str | None = None,
    access: client.Access | None = None,
    timeout_seconds: float = 30,
    session: Session | None = None,
) -> list[Any]:
    """Predict rows, wherever the endpoint is: one inside a cluster is forwarded, unless this is a pod itself.

    Args:
        endpoint: Where to ask: what a deploy returned, or :func:`find_endpoint`; ``Endpoint.through`` gives it behind
            an ingress.
        rows: Mappings from column to value, sequences of values, a DataFrame or an array.
        protocol: One of ``longshore.client.PROTOCOLS``; None is the first of them that the endpoint speaks. ``v2`` and
            ``grpc-v2`` go through KServe's SDK (extra ``kserve``).
        access: Token and certificates.
        timeout_seconds: For the request.
        session: The cluster that the endpoint is in; None is the one at hand.

    Returns:
        One prediction per row.

    Raises:
        InputError: If the model refuses the rows; the message is the server's.
        DeployError: If nothing answers or the answer is no prediction.
        ClusterError: If the endpoint is in a cluster and no pod behind it is ready.
    """
    options = {"protocol": protocol, "access": access, "timeout_seconds": timeout_seconds}
    return ask(endpoint, rows, session=session, **options).predictions


def ask(endpoint: Endpoint, rows: Any, *, session: Session | None = None, **options: Any) -> client.Answer:
    """Predict rows, and keep what :func:`send_feedback` takes; see :func:`predict`."""
    with _reached(endpoint, session) as reachable:
        if reachable is endpoint:
            return client.ask(endpoint, rows, **options)
        # what is forwarded has another address the next time
        with client.Client(reachable, **options) as one:
            return one.ask(rows)


def send_feedback(
    endpoint: Endpoint,
    answer: client.Answer,
    reward: float,
    *,
    truth: Any = None,
    session: Session | None = None,
    **options: Any,
) -> None:
    """Say how good an answer was, so that an experiment can be judged on it.

    Args:
        endpoint: Where it was asked for; only Seldon's protocol knows feedback.
        answer: What :func:`ask` gave, perhaps long ago.
        reward: A finite number; the more the better.
        truth: What would have been right, one value for each row.
        session: The cluster that the endpoint is in; None is the one at hand.
        options: As of :func:`predict`.

    Raises:
        ConfigError: If the endpoint speaks a protocol without feedback.
        InputError: If it is refused; the message is the server's.
        DeployError: If nothing answers.
        ClusterError: If the endpoint is in a cluster and no pod behind it is ready.
    """
    with _reached(endpoint, session) as reachable:
        client.send_feedback(reachable, answer, reward, truth=truth, **options)


def replay_table(
    endpoint: Endpoint,
    model: ModelSource,
    table: str,
    *,
    batch_size: int = 1,
    max_requests: int = 1000,
    max_p99_seconds: float | None = None,
    protocol: str | None = None,
    access: client.Access | None = None,
) -> client.ProbeReport:
    """Send a table's rows to an endpoint as its clients would.

    Args:
        endpoint: Where to send them.
        model: The model that serves there.
        table: Path of a data set that a longshore step wrote; its target column is left out.
        batch_size: Rows in one request.
        max_requests: At most so many requests.
        max_p99_seconds: Bound on the 99th percentile of latency; None sets none.
        protocol: One of ``longshore.client.PROTOCOLS``; None is the first of them that the endpoint speaks.
        access: Token and certificates.

    Raises:
        DeployError: If a request failed, an answer cannot come from the model, or the bound was not kept.
    """
    from longshore.packaging import frame_to_rows
    from longshore.training import read_dataset

    card = card_of(model)
    rows = frame_to_rows(card.signature, read_dataset(table).head(batch_size * max_requests))
    options: dict[str, Any] = {"batch_size": batch_size, "protocol": protocol, "access": access}
    if endpoint.takes == "tensors" and model.format == "tensorflow":
        from longshore import tfserving

        rows = list(tfserving.tensor_rows(card, rows))
        options["output"] = tfserving.OUTPUT
    with _reached(endpoint) as reachable:
        report = client.replay(reachable, rows, card.signature.classes, **options)
    if report.failed:
        raise DeployError(f"{report.failed} of {report.requests} requests failed; the first: {report.first_error}")
    if max_p99_seconds is not None and report.p99_seconds > max_p99_seconds:
        raise DeployError(
            f"the 99th percentile of {report.requests} requests took {report.p99_seconds:.3g} s, "
            f"at most {max_p99_seconds:g} s are allowed"
        )
    return report


def observe_endpoint(endpoint: Endpoint, model: ModelSource) -> tuple[ServingStats, DriftReport]:
    """What an endpoint's revision has served, and whether its inputs look like the model's training data.

    Args:
        endpoint: The endpoint; its metrics are read at the revision's own address where it has one.
        model: The model that serves there.
    """
    from longshore.monitoring import assess, bin_counts, read_metrics, summarise

    with _reached(endpoint.at_revision()) as reachable:
        samples = read_metrics(f"{reachable.url.rstrip('/')}/metrics")
    stats = summarise(samples, revision=endpoint.revision)
    counts = bin_counts(samples, revision=endpoint.revision, version=model.version)
    return stats, assess(card_of(model).baseline, counts)


def _reached(endpoint: Endpoint, session: Session | None = None) -> AbstractContextManager[Endpoint]:
    """The endpoint as this process can call it: one in a cluster is forwarded, unless this is a pod itself."""
    if endpoint.in_cluster is None:
        return nullcontext(endpoint)
    from longshore.cluster import ClusterRuntime

    return ClusterRuntime(session).reach(endpoint)
