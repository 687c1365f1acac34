"""The platform ``local`` as pure functions."""

import json

import pytest

from longshore.errors import InvalidValue
from longshore.spec import HealthState, ModelSource, Release, Service, Traffic
from longshore.targets.local import LocalTarget

MODEL = ModelSource(uri="/models/iris/3", format="sklearn", name="iris", version="3", digest="sha256:" + "0" * 64)


def release(percent: int = 100, **service) -> Release:
    return Release(service=Service(name="iris", **service), model=MODEL, traffic=Traffic(percent=percent))


def observed(*revisions, active=None, url=None):
    (manifest,) = LocalTarget().render(release())
    return [{**manifest, "status": {"active": active, "url": url, "revisions": list(revisions)}}]


def revision(name=None, state="ready", **more):
    return {"name": name or release().revision, "state": state, "reason": "", "url": "http://127.0.0.1:1", **more}


def test_a_release_is_one_object():
    (manifest,) = LocalTarget().render(release(port=8080, env={"A": "b"}, labels={"team": "x"}))
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["kind"] == "ModelServer"
    assert manifest["metadata"] == {"name": "iris", "labels": {"team": "x"}, "annotations": {}}
    spec = manifest["spec"]
    assert (spec["traffic"], spec["port"], spec["env"]) == (100, 8080, {"A": "b"})
    assert spec["model"]["digest"] == MODEL.digest
    assert spec["revision"] == release(port=8080, env={"A": "b"}).revision


def test_the_same_release_gives_the_same_object():
    assert LocalTarget().render(release()) == LocalTarget().render(release())


@pytest.mark.parametrize("percent", [1, 50, 99])
def test_a_share_of_the_requests_is_refused(percent):
    with pytest.raises(InvalidValue, match=r"Traffic\.percent"):
        LocalTarget().render(release(percent))


@pytest.mark.parametrize(
    ("percent", "seen", "state", "words"),
    [
        (100, [], HealthState.PROGRESSING, "not been started"),
        (100, observed(), HealthState.PROGRESSING, "not been started"),
        (100, observed(revision("iris-other"), active="iris-other"), HealthState.PROGRESSING, "not been started"),
        (100, observed(revision(state="starting")), HealthState.PROGRESSING, "loading"),
        (100, observed(revision(), active="iris-other"), HealthState.PROGRESSING, "port"),
        (100, observed(revision(), active=release().revision), HealthState.READY, ""),
        (0, observed(revision()), HealthState.READY, ""),
        (0, observed(revision(state="failed", reason="no such file")), HealthState.FAILED, "no such file"),
        (100, observed(revision(state="stopped", reason="killed"), active=None), HealthState.FAILED, "killed"),
        (100, observed(revision(state="draining"), active="iris-other"), HealthState.PROGRESSING, "loading"),
    ],
)
def test_health_is_that_of_the_very_revision(percent, seen, state, words):
    health = LocalTarget().health(release(percent), seen)
    assert health.state is state
    assert words in health.why


def test_another_service_says_nothing():
    seen = observed(revision(), active=release().revision)
    seen[0]["metadata"] = {"name": "other"}
    assert LocalTarget().health(release(), seen).state is HealthState.PROGRESSING


def test_the_endpoint_is_the_service_and_without_traffic_the_revision():
    seen = observed(revision(), active=release().revision, url="http://127.0.0.1:8080")
    serving = LocalTarget().endpoint(release(), seen)
    assert (serving.url, serving.revision_url) == ("http://127.0.0.1:8080", "http://127.0.0.1:1")
    candidate = LocalTarget().endpoint(release(0), seen)
    assert candidate.url == "http://127.0.0.1:1"
    assert serving.predict_url == "http://127.0.0.1:8080/v1/models/iris:predict"
