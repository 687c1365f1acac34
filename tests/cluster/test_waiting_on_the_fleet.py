"""Verdicts on Deployments whose pods are fake, and late or broken as their annotations say; real controllers judge."""

import time

import pytest
from harness.fleet import FAIL, READY_DELAY
from harness.objects import deployment

from longshore.spec import Health, HealthState
from longshore.targets.base import Selection
from longshore.targets.workload import deployment_health


def annotated(namespace: str, replicas: int = 1, **annotations: str) -> dict:
    manifest = deployment(namespace, replicas=replicas)
    manifest["spec"]["template"]["metadata"]["annotations"] = annotations
    manifest["spec"]["template"]["spec"]["initContainers"] = [{"name": "fetch", "image": "fetch:1"}]
    return manifest


def verdict(runtime, manifest, *, seconds: float = 30) -> tuple[Health, float]:
    """The first verdict that is not progress, or the last one, and when it was there."""
    started = time.monotonic()
    refs = runtime.apply([manifest])
    namespace = manifest["metadata"]["namespace"]
    also = [Selection("v1", "Pod", namespace, {"app": "web"}), Selection("v1", "Event", namespace)]
    observed = runtime.observe(refs, also=also, deadline=started + seconds)
    health = Health.progressing("nothing seen")
    for web, *others in observed:
        template = web["spec"]["template"]["metadata"].get("annotations")
        pods = [pod for pod in others if pod["kind"] == "Pod" and pod["metadata"].get("annotations") == template]
        health = deployment_health(web, pods, [event for event in others if event["kind"] == "Event"])
        if health.state is not HealthState.PROGRESSING:
            break
    observed.close()
    return health, time.monotonic() - started


def test_a_rollout_is_ready_when_its_last_pod_is(runtime, fleet, namespace):
    health, seconds = verdict(runtime, annotated(namespace, 3, **{READY_DELAY: "2s"}))
    assert health.state is HealthState.READY
    assert seconds >= 2


def test_a_rollout_that_has_just_been_asked_for_is_never_ready(runtime, fleet, namespace):
    """The status that is there right after a change is the one before it."""
    assert verdict(runtime, annotated(namespace))[0].state is HealthState.READY
    for number in range(5):
        health, seconds = verdict(runtime, annotated(namespace, **{READY_DELAY: "1s", "round": str(number)}))
        assert health.state is HealthState.READY
        assert seconds >= 1


FAILURES = {
    "image": "the image cannot be pulled: Back-off pulling image",
    "crash": "ValueError: bad model",
    "init": "Failed to fetch model. No model found in s3://models/missing",
    "config": 'CreateContainerConfigError: secret "nope" not found',
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_at_once_in_the_pods_words(runtime, fleet, namespace, failure):
    assert verdict(runtime, annotated(namespace))[0].state is HealthState.READY
    health, seconds = verdict(runtime, annotated(namespace, **{FAIL: failure}))
    assert health.state is HealthState.FAILED
    assert FAILURES[failure] in health.why
    assert seconds < 20


def test_pods_that_never_become_ready_are_still_progress_when_time_is_up(runtime, fleet, namespace):
    health, _ = verdict(runtime, annotated(namespace, 2, **{FAIL: "unready"}), seconds=3)
    assert health == Health.progressing("0 of 2 pods are ready")


def test_pods_that_no_node_takes(runtime, fleet, namespace):
    manifest = annotated(namespace)
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"accelerator": "none-such"}
    health, seconds = verdict(runtime, manifest)
    assert health.state is HealthState.STALLED
    assert "didn't match Pod's node affinity/selector" in health.why
    assert seconds < 20


def test_pods_that_a_quota_refuses(runtime, fleet, cluster, namespace):
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small", "namespace": namespace},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    health, seconds = verdict(runtime, annotated(namespace))
    assert health.state is HealthState.STALLED
    assert "exceeded quota: small" in health.why
    assert seconds < 20


def test_pods_whose_account_is_missing(runtime, fleet, namespace):
    manifest = annotated(namespace)
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    health, _ = verdict(runtime, manifest)
    assert health.state is HealthState.STALLED
    assert 'serviceaccount "nobody" not found' in health.why
