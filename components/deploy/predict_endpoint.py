"""Send a table to an endpoint."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from longshore.authoring import component


@component(cached=False)
def predict_endpoint(
    endpoint: Input[Artifact],
    model: Input[Model],
    dataset: Input[Dataset],
    metrics: Output[Metrics],
    batch_size: int = 1,
    max_requests: int = 1000,
    max_p99_seconds: Optional[float] = None,
    protocol: Optional[str] = None,
    token_file: Optional[str] = None,
) -> NamedTuple("Outputs", [("requests", int), ("failed", int), ("p50_seconds", float), ("p99_seconds", float)]):
    """Send rows to an endpoint as its clients would, and fail if an answer is missing or cannot be right.

    Args:
        endpoint: Where to send them.
        model: The model that serves there; its card says what rows and answers look like.
        dataset: Table to send, without its target column.
        metrics: Requests, failures and latency as the client saw them.
        batch_size: Rows in one request.
        max_requests: At most so many requests; the table's first rows are sent.
        max_p99_seconds: Bound on the 99th percentile of latency; None sets none.
        protocol: v1, v2, seldon or tensorflow, or one of the last three over gRPC as in grpc-v2; None is the first of
            them that the endpoint speaks.
        token_file: File with a bearer token in the step's pod, such as that of a projected service account.

    Returns:
        requests: Requests sent.
        failed: Always 0: a failure ends the step.
        p50_seconds: Median latency.
        p99_seconds: 99th percentile of latency.

    Raises:
        DeployError: If a request failed, or took too long; the message is the first failure's.
    """
    from longshore.artifacts import read_endpoint, read_model
    from longshore.client import Access
    from longshore.deployment import replay_table

    report = replay_table(
        read_endpoint(endpoint),
        read_model(model),
        dataset.path,
        batch_size=batch_size,
        max_requests=max_requests,
        max_p99_seconds=max_p99_seconds,
        protocol=protocol,
        access=Access(token_file=token_file),
    )
    for name in ("requests", "failed", "rows", "p50_seconds", "p99_seconds"):
        metrics.log_metric(name, float(getattr(report, name)))
    return report.requests, report.failed, report.p50_seconds, report.p99_seconds
