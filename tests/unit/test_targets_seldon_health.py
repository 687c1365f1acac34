"""Reading a SeldonDeployment and what was made of it."""

from copy import deepcopy
from dataclasses import replace

import pytest

from longshore.spec import (
    HealthState,
    ModelSource,
    Release,
    Resources,
    Scaling,
    SeldonExplainer,
    SeldonGateway,
    SeldonOptions,
    Service,
    Traffic,
)
from longshore.targets.base import REVISION_LABEL
from longshore.targets.seldon import SeldonTarget

MODEL = ModelSource(uri="s3://models/iris/2", format="sklearn", name="iris")
TARGET = SeldonTarget()
BEFORE = Release(service=Service(name="iris"), model=replace(MODEL, uri="s3://models/iris/1"))


def release(percent=100, mirror=0, options=None, **service):
    traffic = Traffic(percent=percent, mirror_percent=mirror)
    wanted = Release(service=Service(name="iris", seldon=options, **service), model=MODEL, traffic=traffic)
    return wanted if percent == 100 else wanted.next_to(BEFORE)


WANTED = release()


def deployment(one, *, pods=1, ready=True, wanted=None, name=None, **status):
    """A Deployment as Seldon makes it for a revision, with one pod."""
    rendered = TARGET.render(wanted or one)[0]["spec"]["predictors"]
    predictor = next(each for each in rendered if each["labels"][REVISION_LABEL] == one.revision)
    name = name or f"{one.revision}-0-iris"
    labels = {"seldon-deployment-id": "iris", "app": name, **predictor["labels"]}
    if predictor.get("shadow"):
        labels["seldon.io/shadow"] = "true"
    now = {"observedGeneration": 1, "replicas": pods, "updatedReplicas": pods, "readyReplicas": pods * ready}
    now |= {"availableReplicas": pods * ready, "unavailableReplicas": 0 if ready else pods, **status}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "generation": 1, "labels": labels},
        "spec": {
            "replicas": pods,
            "template": {"metadata": {"labels": labels, "annotations": dict(predictor["annotations"])}},
        },
        "status": now,
    }


def pod(of, waiting=None):
    labels = of["metadata"]["labels"]
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    container = {"name": "iris", "image": "server:1", "state": state}
    return {
        "kind": "Pod",
        "metadata": {"name": f"{of['metadata']['name']}-x", "labels": labels},
        "status": {"containerStatuses": [container]},
    }


def seldon(wanted, state="Available", description=""):
    found = deepcopy(TARGET.render(wanted)[0])
    found["status"] = {"state": state, "description": description} if state else {}
    return found


def health(wanted, *observed):
    return TARGET.health(wanted, observed)


def test_available_with_its_own_deployment():
    assert health(WANTED, seldon(WANTED), deployment(WANTED)).state is HealthState.READY


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        ([], "is not there yet"),
        ([seldon(WANTED)], f"Seldon has not made the Deployment of {WANTED.revision} yet"),
        ([seldon(WANTED), deployment(BEFORE)], f"Seldon has not made the Deployment of {WANTED.revision} yet"),
        ([seldon(WANTED), deployment(WANTED, observedGeneration=0)], "its controller has not seen that yet"),
        ([seldon(WANTED), deployment(WANTED, ready=False)], "0 of 1 pods are ready"),
        ([seldon(WANTED, "Creating"), deployment(WANTED)], "the SeldonDeployment is Creating yet"),
        ([seldon(WANTED, None), deployment(WANTED)], "Seldon has not said yet"),
        ([seldon(WANTED), deployment(WANTED, pods=2)], "is for 2 pods yet, 1 are asked for"),
    ],
)
def test_what_is_on_its_way(observed, words):
    found = health(WANTED, *observed)
    assert found.state is HealthState.PROGRESSING
    assert words in found.why


def test_what_is_still_being_deleted():
    found = seldon(WANTED)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert "still being deleted" in health(WANTED, found).why


def test_labels_that_have_not_reached_the_pods_yet():
    labelled = release(labels={"team": "a"})
    assert labelled.revision == WANTED.revision
    found = health(labelled, seldon(labelled), deployment(WANTED))
    assert found.state is HealthState.PROGRESSING
    assert "has not passed this revision on" in found.why


def test_a_copy_that_answers_still():
    shadow = release(percent=0, mirror=10)
    answering = deployment(shadow, wanted=release(percent=20))
    found = health(shadow, seldon(shadow), deployment(BEFORE), answering)
    assert "has not passed this revision on" in found.why
    assert health(shadow, seldon(shadow), deployment(BEFORE), deployment(shadow)).state is HealthState.READY


def test_the_pods_reason_comes_first():
    own = deployment(WANTED, ready=False)
    found = health(WANTED, seldon(WANTED, "Failed", "no longer progressing"), own, pod(own, "ImagePullBackOff"))
    assert found.state is HealthState.FAILED
    assert "cannot be pulled" in found.why


def test_the_pods_of_others_say_nothing():
    other, own = deployment(BEFORE), deployment(WANTED, ready=False)
    found = health(WANTED, seldon(WANTED, "Creating"), own, other, pod(other, "ImagePullBackOff"))
    assert found.state is HealthState.PROGRESSING


@pytest.mark.parametrize("made", [[], [deployment(WANTED)]])
def test_failed_may_be_over_in_a_moment(made):
    found = health(WANTED, seldon(WANTED, "Failed", "the object has been modified"), *made)
    assert found.state is HealthState.STALLED
    assert "Seldon cannot carry the SeldonDeployment out: the object has been modified" in found.why


@pytest.mark.parametrize(
    "change",
    [
        lambda predictors: predictors.append({"name": "other", "traffic": 0}),
        lambda predictors: predictors.pop(0),
        lambda predictors: predictors[0].update(traffic=50),
        lambda predictors: predictors[0].update(shadow=True),
    ],
)
def test_somebody_elses_change_is_seen(change):
    wanted = release(percent=20)
    found = seldon(wanted)
    change(found["spec"]["predictors"])
    verdict = health(wanted, found, deployment(BEFORE), deployment(wanted))
    assert verdict.state is HealthState.FAILED
    assert "somebody else changed the SeldonDeployment" in verdict.why


def test_one_that_gets_no_requests_does_not_wait_for_what_serves():
    candidate = release(percent=0)
    broken = deployment(BEFORE, ready=False)
    assert health(candidate, seldon(candidate, "Creating"), broken, deployment(candidate)).state is HealthState.READY
    part = release(percent=20)
    found = health(part, seldon(part, "Creating"), broken, deployment(part))
    assert found.state is HealthState.STALLED
    assert f"once all revisions are available, and {BEFORE.revision} is not: 0 of 1 pods are ready" in found.why


def test_an_explainer_is_awaited():
    wanted = release(options=SeldonOptions(explainer=SeldonExplainer(type="ALE")))
    own, explainer = deployment(wanted), deployment(wanted, name=f"{wanted.revision}-explainer")
    assert "the explainer's Deployment" in health(wanted, seldon(wanted), own).why
    assert health(wanted, seldon(wanted), own, explainer).state is HealthState.READY
    ill = deployment(wanted, ready=False, name=f"{wanted.revision}-explainer")
    assert health(wanted, seldon(wanted), own, ill).state is HealthState.PROGRESSING


def test_an_autoscaler_has_to_raise_it_to_the_least():
    wanted = release(scaling=Scaling(min_replicas=2, max_replicas=4), resources=Resources(cpu="1"))
    assert "has not raised the number of replicas from 1" in health(wanted, seldon(wanted), deployment(wanted)).why
    assert health(wanted, seldon(wanted), deployment(wanted, pods=3)).state is HealthState.READY


ISTIO = SeldonOptions(gateway=SeldonGateway())


def route(**rule):
    return {"kind": "VirtualService", "metadata": {"name": "iris"}, "spec": {"http": [rule]}}


def host(one):
    return {"host": f"{one.revision}.default.svc.cluster.local"}


def test_istio_has_to_know_the_shares():
    wanted = release(percent=20, options=ISTIO)
    rest = [seldon(wanted), deployment(BEFORE, wanted=wanted), deployment(wanted)]
    missing = health(wanted, *rest)
    assert missing.state is HealthState.STALLED
    assert "istio.enabled" in missing.why
    before = route(route=[{"destination": host(BEFORE)}])
    assert "sends 0 % of the requests to it yet, not 20 %" in health(wanted, *rest, before).why
    after = [{"destination": host(BEFORE), "weight": 80}, {"destination": host(wanted), "weight": 20}]
    assert health(wanted, *rest, route(route=after)).state is HealthState.READY
    # one that gets none need not be there
    none = release(percent=0, options=ISTIO)
    assert health(none, seldon(none), deployment(BEFORE, wanted=none), deployment(none)).state is HealthState.READY


def test_istio_has_to_know_the_copies():
    wanted = release(percent=0, mirror=30, options=ISTIO)
    rest = [seldon(wanted), deployment(BEFORE, wanted=wanted), deployment(wanted)]
    mirrored = route(route=[{"destination": host(BEFORE)}], mirror=host(wanted), mirrorPercentage={"value": 30.0})
    assert health(wanted, *rest, mirrored).state is HealthState.READY
    mirrored["spec"]["http"][0]["mirror"] = host(BEFORE)
    assert health(wanted, *rest, mirrored).state is HealthState.PROGRESSING
