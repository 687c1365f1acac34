"""Experiments on a service's requests: two revisions share them, are observed, and one of them gets all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from longshore.deployment import deployed_release, earlier_release, promote_service
from longshore.deployment.settings import registry_of
from longshore.errors import ConfigError, InvalidValue
from longshore.monitoring import (
    Arm,
    ExperimentRules,
    ExperimentVerdict,
    by_label,
    instant,
    judge_experiment,
)
from longshore.monitoring.experiment import failing
from longshore.registry import DeploymentState, RegisteredVersion, Registry
from longshore.registry.versions import superseded_state
from longshore.spec import Release
from longshore.spec.checks import check_range
from longshore.targets.seldon_signals import REVISION_OF_SERIES, experiment_queries

if TYPE_CHECKING:
    from longshore.client import Access
    from longshore.cluster import Session
    from longshore.release import Deployment

__all__ = ["compare_revisions", "conclude_experiment"]

_PLATFORMS: Final = ("seldon",)

_log = logging.getLogger(__name__)


def compare_revisions(
    name: str,
    *,
    prometheus: str,
    window_seconds: int = 3600,
    rules: ExperimentRules | None = None,
    winner: str | None = None,
    platform: str = "seldon",
    namespace: str | None = None,
    matchers: Mapping[str, str] | None = None,
    access: Access | None = None,
    interval_seconds: float = 15,
    session: Session | None = None,
    on_progress: Callable[[str], None] = _log.info,
) -> ExperimentVerdict:
    """Observe the two revisions that share a service's requests for a while, and judge them.

    It waits to the end of the window, since who looks again and again until something shows up finds it by chance. Only
    errors end it early: a revision that fails more of its requests than it may.

    Args:
        name: Name of the service. ``a`` is the revision that answered all before, ``b`` the one that was deployed last
            with a part.
        prometheus: URL of the Prometheus that scrapes its pods.
        window_seconds: How long to observe.
        rules: What decides.
        winner: ``a`` or ``b`` if a person has chosen; what is observed is told all the same.
        platform: ``seldon``; others do not count rewards.
        namespace: As of :func:`longshore.deployment.deploy_model`, like ``session``.
        matchers: Labels that the series have to have, such as ``{"namespace": "models"}`` where others have a service
            of the same name.
        access: Token and certificates for Prometheus.
        interval_seconds: How often errors are looked at.
        session: The cluster; None is the one at hand.
        on_progress: Called with a sentence whenever it has looked.

    Raises:
        ConfigError: If no two revisions share the service's requests.
        MonitorError: If Prometheus cannot be asked or refuses.
    """
    check_range("window_seconds", window_seconds, 1)
    if platform not in _PLATFORMS:
        raise InvalidValue("platform", platform, f"use one of {', '.join(_PLATFORMS)}: others count no rewards")
    rules = rules or ExperimentRules()
    a, b = _sharing(name, deployed_release(name, platform=platform, namespace=namespace, session=session))

    def look(seconds: int) -> tuple[Arm, Arm]:
        queries = experiment_queries(name, (a, b), seconds, matchers=matchers)
        found = {
            what: by_label(instant(prometheus, query, access=access), REVISION_OF_SERIES)
            for what, query in queries.items()
        }
        first, second = (_arm(revision, found) for revision in (a, b))
        on_progress(f"{_told('a', first)}; {_told('b', second)}")
        return first, second

    # a Prometheus that cannot be asked is told at once, not after the window
    arms = look(1)
    begun = time.monotonic()
    while (left := begun + window_seconds - time.monotonic()) > 0:
        time.sleep(min(interval_seconds, left))
        arms = look(max(1, round(time.monotonic() - begun)))
        if failing(*arms, rules):
            break
    return judge_experiment(*arms, rules, winner=winner)


def conclude_experiment(
    name: str,
    winner: str,
    *,
    reason: str,
    platform: str = "seldon",
    namespace: str | None = None,
    session: Session | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 600,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[Release]:
    """Give all requests to the winner of an experiment, end the others, and record of all what became of them.

    Args:
        name: Name of the service.
        winner: The revision.
        reason: Why, for the registry.
        platform: As of :func:`compare_revisions`, like ``namespace`` and ``session``.
        namespace: Kubernetes namespace.
        session: The cluster.
        tracking_uri: The registry; None is the one where the winner was recorded.
        timeout_seconds: For the requests to be moved.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If nothing of that name was deployed, or the winner does not run.
        DeployError: If the winner does not answer well; the requests are then shared out as before.
        RegistryError: If the winner serves and this could not be recorded.
    """
    last = deployed_release(name, platform=platform, namespace=namespace, session=session)
    if last.revision == winner and not last.beside:
        # it has all requests already: what became of the others could not be recorded then
        last = earlier_release(name, platform=platform, namespace=namespace, session=session) or last
    done = promote_service(
        name,
        revision=winner,
        platform=platform,
        namespace=namespace,
        session=session,
        tracking_uri=tracking_uri,
        timeout_seconds=timeout_seconds,
        on_progress=on_progress,
    )
    losers = [one for one in (last, *last.beside) if one.revision != winner]
    _record(done, losers, reason, tracking_uri)
    return done


def _sharing(name: str, release: Release) -> tuple[str, str]:
    """The revisions that share a service's requests: the one that was there first, and the one beside it."""
    others = [revision for revision, percent in release.traffic.others.items() if percent]
    if len(others) != 1 or not release.traffic.percent:
        answers = ", ".join(others) or release.revision
        raise ConfigError(
            f"the requests of {name} are not shared by two revisions: {answers} answers them. Deploy another one with "
            "a part first (traffic_percent)"
        )
    return others[0], release.revision


def _arm(revision: str, found: Mapping[str, Mapping[str, float]]) -> Arm:
    seen = {what: values.get(revision, 0.0) for what, values in found.items()}
    return Arm(
        revision=revision,
        requests=round(seen["requests"]),
        errors=round(seen["errors"]),
        rewards=round(seen["rewards"]),
        reward_sum=seen["reward_sum"],
    )


def _told(who: str, arm: Arm) -> str:
    reward = "" if arm.reward is None else f", {arm.reward:.4g} on average"
    return f"{who} answered {arm.requests}, {arm.errors} with an error, {arm.rewards} rewards{reward}"


def _record(done: Deployment[Release], losers: Sequence[Release], reason: str, tracking_uri: str | None) -> None:
    winner, service = done.release.model, done.release.service
    state = DeploymentState(state="serving", revision=done.release.revision, endpoint=done.endpoint.url, reason=reason)
    outcomes = [(winner, state)]
    for loser in losers:
        model = loser.model
        if model.version is not None and (model.name, model.version) != (winner.name, winner.version):
            version = RegisteredVersion(name=model.name, version=model.version, uri=model.uri)
            ended = superseded_state(version, winner)
            outcomes.append((model, DeploymentState(state=ended, revision=loser.revision, reason=reason)))
    registry = Registry(tracking_uri or registry_of(service))
    for model, state in outcomes:
        if model.version is not None:
            registry.record(model.name, model.version, service.name, state)
