"""Read an endpoint's metrics and input drift."""

from typing import NamedTuple

from kfp.dsl import HTML, Artifact, Input, Metrics, Model, Output

from longshore.authoring import component


@component(cached=False)
def monitor_endpoint(
    endpoint: Input[Artifact],
    model: Input[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
) -> NamedTuple(
    "Outputs",
    [("requests", int), ("errors", int), ("p50_seconds", float), ("p99_seconds", float), ("drift", str)],
):
    """Read what a revision has served, and whether its inputs still look like its training data.

    Args:
        endpoint: The endpoint to read.
        model: The model that serves there; its card holds the baseline.
        metrics: Requests, errors and latency as the server counted them.
        report: Drift by feature.

    Returns:
        requests: Predict requests answered.
        errors: Of them with a 5xx status.
        p50_seconds: Median latency, from the server's histogram.
        p99_seconds: 99th percentile of latency, from the server's histogram.
        drift: ``none``, ``drift`` or ``not-enough-data``.

    Raises:
        LongshoreError: If the metrics cannot be read.
    """
    from pathlib import Path

    from longshore.artifacts import read_endpoint, read_model
    from longshore.deployment import observe_endpoint

    stats, drift = observe_endpoint(read_endpoint(endpoint), read_model(model))
    for name in ("requests", "errors", "p50_seconds", "p99_seconds"):
        metrics.log_metric(name, float(getattr(stats, name)))
    Path(report.path).write_text(drift.to_html(), encoding="utf-8")
    return stats.requests, stats.errors, stats.p50_seconds, stats.p99_seconds, drift.verdict
