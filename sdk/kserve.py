"""What only KServe has, brought up by the engine: several services behind one endpoint, and language models."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from longshore.deployment import default_namespace
from longshore.errors import DeployError, InvalidValue
from longshore.release import PATIENCE_SECONDS, Deployment, Probe, deploy, remove
from longshore.spec import Endpoint, InferenceGraph, LLMService, Service

if TYPE_CHECKING:
    from longshore.cluster import Session
    from longshore.targets.base import Target

__all__ = ["answers", "delete_graph", "delete_llm", "deploy_graph", "deploy_llm"]

_PAUSE_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


def deploy_graph(
    graph: InferenceGraph,
    *,
    example: Any = None,
    session: Session | None = None,
    timeout_seconds: float = 120,
    patience_seconds: float = PATIENCE_SECONDS,
    force: bool = False,
    kserve_version: tuple[int, int] | None = None,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[InferenceGraph]:
    """Serve a graph and return once its very revision runs and what its steps ask is ready.

    On any failure the graph that served before is brought back; where none did, nothing is left.

    Args:
        graph: The graph.
        example: Body of a request, as JSON; the graph has to answer it with a status of 2xx. None asks nothing.
        session: The cluster; None is the one at hand.
        timeout_seconds: For each wait until the revision is ready.
        patience_seconds: For a service that a step asks and that is missing or not ready.
        force: Take over what somebody else has set in the InferenceGraph.
        kserve_version: Version of KServe in the cluster; None reads it there.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If the request cannot be carried out as written.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the graph did not come up or did not answer; says what serves instead.
    """
    from longshore import cluster
    from longshore.targets.kserve_graph import KServeGraphTarget

    # what no version can do is told before anything is asked of the cluster
    KServeGraphTarget().render(graph)
    probe = None if example is None else answers(example)
    runtime = cluster.ClusterRuntime(session, force=force)
    version = kserve_version or cluster.kserve_version(runtime.session)
    return deploy(
        graph,
        target=KServeGraphTarget() if version is None else KServeGraphTarget(version),
        runtime=runtime,
        probe=probe,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        on_progress=on_progress,
    )


def deploy_llm(
    llm: LLMService,
    *,
    session: Session | None = None,
    timeout_seconds: float = 1800,
    patience_seconds: float = PATIENCE_SECONDS,
    force: bool = False,
    kserve_version: tuple[int, int] | None = None,
    on_progress: Callable[[str], None] = _log.info,
) -> Deployment[LLMService]:
    """Serve a language model and return once all pods of its very revision are ready, and requests are brought there.

    On any failure what served before is brought back; where nothing did, nothing is left. A rollout needs room for one
    more replica: where there is none, the new pods wait, and the deploy fails after ``patience_seconds``.

    Args:
        llm: The model and its endpoint.
        session: The cluster; None is the one at hand.
        timeout_seconds: For each wait until the revision is ready, its download included.
        patience_seconds: For what stalls the revision from outside to end: GPUs that are taken, a gateway that is away.
        force: Take over what somebody else has set in the LLMInferenceService.
        kserve_version: Version of KServe in the cluster; None reads it there.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If the request cannot be carried out as written.
        ClusterError: If the cluster refuses or cannot be reached, or has no LLMInferenceService.
        DeployError: If the model did not come up; says what serves instead.
    """
    from longshore import cluster
    from longshore.targets.kserve_llm import KServeLLMTarget

    KServeLLMTarget().render(llm)
    runtime = cluster.ClusterRuntime(session, force=force)
    version = kserve_version or cluster.kserve_version(runtime.session)
    return deploy(
        llm,
        target=KServeLLMTarget() if version is None else KServeLLMTarget(version),
        runtime=runtime,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        on_progress=on_progress,
    )


def delete_graph(name: str, *, namespace: str | None = None, session: Session | None = None) -> None:
    """Remove a graph, and not what its steps ask. What is gone already is no error."""
    from longshore.targets.kserve_graph import KServeGraphTarget

    _delete(KServeGraphTarget(), name, namespace, session)


def delete_llm(name: str, *, namespace: str | None = None, session: Session | None = None) -> None:
    """Remove a language model's service. What is gone already is no error."""
    from longshore.targets.kserve_llm import KServeLLMTarget

    # every version of KServe that has the kind serves the oldest one
    _delete(KServeLLMTarget((0, 16)), name, namespace, session)


def _delete(target: Target[Any], name: str, namespace: str | None, session: Session | None) -> None:
    from longshore.cluster import ClusterRuntime

    place = namespace or default_namespace("kserve", session)
    remove(Service(name=name, namespace=place), target=target, runtime=ClusterRuntime(session))


def answers(example: Any, *, timeout_seconds: float = 30) -> Probe:
    """A probe that posts a body to the endpoint's URL, and takes any answer with a status of 2xx.

    Args:
        example: The body, as JSON.
        timeout_seconds: For the address to lead there, and for the answer.

    Raises:
        InvalidValue: If JSON cannot hold it.
    """
    try:
        body = json.dumps(example, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidValue("example", type(example).__name__, f"use what JSON can hold: {error}") from error

    def ask(endpoint: Endpoint) -> None:
        import requests

        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                with requests.Session() as session:
                    # a proxy set for the internet has no business with a cluster's addresses
                    session.trust_env = False
                    headers = {"Content-Type": "application/json"}
                    answer = session.post(endpoint.url, data=body, headers=headers, timeout=timeout_seconds)
                break
            except requests.RequestException as error:
                # every node learns for itself where the address leads
                if time.monotonic() > deadline:
                    raise DeployError(f"{endpoint.url} did not answer: {error}") from error
            time.sleep(_PAUSE_SECONDS)
        if not answer.ok:
            raise DeployError(f"{endpoint.url} answered the example with {answer.status_code}: {answer.text[:500]}")

    return ask
