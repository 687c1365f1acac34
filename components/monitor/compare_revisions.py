"""Observe two revisions that share a service's requests, and judge them."""

from typing import Dict, NamedTuple, Optional

from kfp.dsl import Markdown, Metrics, Output

from longshore.authoring import component


@component(cached=False)
def compare_revisions(
    metrics: Output[Metrics],
    report: Output[Markdown],
    name: str,
    prometheus: str,
    window_seconds: int = 3600,
    winner: Optional[str] = None,
    min_requests: int = 100,
    min_rewards: int = 30,
    max_error_percent: float = 5.0,
    reward_low: float = 0.0,
    reward_high: float = 1.0,
    confidence: float = 0.95,
    platform: str = "seldon",
    namespace: Optional[str] = None,
    matchers: Optional[Dict[str, str]] = None,
    token_file: Optional[str] = None,
    ca_file: Optional[str] = None,
) -> NamedTuple("Outputs", [("winner", str), ("revision", str), ("decided", bool), ("reason", str)]):
    """Watch the errors and rewards of two revisions for a while, and say which one should answer all requests.

    ``a`` is the revision that answered all before, ``b`` the one that was deployed last with a part. A revision that
    fails too many of its requests loses, and ends the wait. Else the better average reward wins at the end of the
    window, if it is better by more than chance; what is not decided stays with ``a``.

    Args:
        metrics: What was observed of both.
        report: The verdict with what it rests on.
        name: Name of the service.
        prometheus: URL of the Prometheus that scrapes its pods, such as ``http://prometheus.monitoring:9090``.
        window_seconds: How long to observe.
        winner: ``a`` or ``b``, if a person has chosen; what is observed is reported all the same.
        min_requests: So many requests each must have answered for a decision.
        min_rewards: So many rewards each must have.
        max_error_percent: Percent of its requests that a revision may fail.
        reward_low: The least that a reward can be.
        reward_high: The most that it can be.
        confidence: How sure it has to be that the difference is none of chance; with 0 the larger average wins.
        platform: ``seldon``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        matchers: Labels that the series have to have, such as ``{"namespace": "models"}``.
        token_file: File with a bearer token for Prometheus.
        ca_file: Certificates of the authorities to trust.

    Returns:
        winner: ``a`` or ``b``.
        revision: Name of that revision.
        decided: Whether it was decided.
        reason: Why, in one sentence.

    Raises:
        ConfigError: If no two revisions share the service's requests.
        MonitorError: If Prometheus cannot be asked, or rewards are beyond their bounds.
    """
    from pathlib import Path

    from longshore.client import Access
    from longshore.experiments import compare_revisions
    from longshore.monitoring import ExperimentRules

    verdict = compare_revisions(
        name,
        prometheus=prometheus,
        window_seconds=window_seconds,
        rules=ExperimentRules(
            min_requests=min_requests,
            min_rewards=min_rewards,
            max_error_percent=max_error_percent,
            reward_low=reward_low,
            reward_high=reward_high,
            confidence=confidence,
        ),
        winner=winner,
        platform=platform,
        namespace=namespace,
        matchers=matchers,
        access=Access(token_file=token_file, ca_file=ca_file),
    )
    for key, value in verdict.numbers().items():
        metrics.log_metric(key, value)
    Path(report.path).write_text(verdict.to_markdown(), encoding="utf-8")
    return verdict.winner, verdict.revision, verdict.decided, verdict.reason
