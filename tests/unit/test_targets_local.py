"""The platform ``local`` as pure functions."""

import json

import pytest

from longshore.errors import InvalidValue
from longshore.spec import HealthState, ModelSource, Release, Router, Scaling, Service, Tls, Traffic
from longshore.targets.local import LocalTarget

MODEL = ModelSource(uri="/models/iris/3", format="sklearn", name="iris", version="3", digest="sha256:" + "0" * 64)


def release(percent: int = 100, base: str | None = None, mirror: int = 0, **service) -> Release:
    traffic = Traffic(percent=percent, base=base, mirror_percent=mirror)
    return Release(service=Service(name="iris", **service), model=MODEL, traffic=traffic)


def routed(percent: int = 100, base: str | None = None, mirror: int = 0, **router) -> Release:
    return release(percent, base, mirror, router=Router(kind="nginx", **router))


def observed(*revisions, active=None, url=None, shares=None):
    (manifest,) = LocalTarget().render(release())
    status = {"active": active, "url": url, "revisions": list(revisions), "routed": shares}
    return [{**manifest, "status": status}]


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


def test_with_a_router_the_object_says_who_gets_what():
    def shares(wanted):
        (manifest,) = LocalTarget().render(wanted)
        return manifest["spec"]["router"]["shares"]

    own = release().revision
    assert shares(routed()) == {own: 100}
    assert shares(routed(10, "iris-old")) == {own: 10, "iris-old": 90}
    assert shares(routed(0, "iris-old")) == {"iris-old": 100}
    # the first of a service, while it is tried out
    assert shares(routed(0)) == {}


@pytest.mark.parametrize(
    ("router", "field"), [({"kind": "istio"}, "kind"), ({"kind": "nginx", "image": "nginx"}, "image")]
)
def test_a_router_that_only_a_cluster_has_is_refused(router, field):
    with pytest.raises(InvalidValue, match=rf"Router\.{field}"):
        LocalTarget().render(release(router=Router(**router)))


@pytest.mark.parametrize(
    ("scaling", "router", "field"),
    [
        (Scaling(min_replicas=2), None, "min_replicas.*router"),
        (Scaling(max_replicas=2), None, "max_replicas.*leave it out"),
        (Scaling(min_replicas=2, max_replicas=3), Router(kind="nginx"), "max_replicas"),
    ],
)
def test_replicas_need_a_router_and_are_not_added_by_themselves(scaling, router, field):
    with pytest.raises(InvalidValue, match=rf"Scaling\.{field}"):
        LocalTarget().render(release(scaling=scaling, router=router))


def test_a_revision_has_the_replicas_that_were_asked_for():
    def replicas(**scaling):
        return LocalTarget().render(release(scaling=Scaling(**scaling), router=Router(kind="nginx")))[0]["spec"][
            "replicas"
        ]

    assert replicas() == replicas(min_replicas=0) == 1
    assert replicas(min_replicas=3) == replicas(min_replicas=3, max_replicas=3) == 3


def test_a_certificate_is_files_here_and_makes_the_endpoint_one_of_https():
    with pytest.raises(InvalidValue, match=r"Tls\.secret.*cert_file"):
        LocalTarget().render(routed(tls=Tls(secret="a")))
    ca = "-----BEGIN CERTIFICATE-----"
    wanted = routed(tls=Tls(cert_file="/a.crt", key_file="/a.key", host="iris.example.com", ca=ca))
    (manifest,) = LocalTarget().render(wanted)
    assert manifest["spec"]["router"]["tls"] == {
        "certFile": "/a.crt",
        "keyFile": "/a.key",
        "host": "iris.example.com",
    }
    endpoint = LocalTarget().endpoint(wanted, observed(revision(), url="https://127.0.0.1:8443"))
    assert (endpoint.url, endpoint.ca) == ("https://127.0.0.1:8443", ca)
    assert endpoint.headers == {"Host": "iris.example.com"}


def test_copies_need_a_router():
    with pytest.raises(InvalidValue, match=r"Traffic\.mirror_percent.*router"):
        LocalTarget().render(release(0, mirror=10))
    LocalTarget().render(routed(0, "iris-old", 10))


@pytest.mark.parametrize(
    ("old", "shares", "state", "words"),
    [
        (None, None, HealthState.FAILED, "iris-old, which shall answer a part of the requests: there is no process"),
        ({"state": "stopped", "reason": "killed"}, None, HealthState.FAILED, "killed"),
        ({"state": "starting"}, None, HealthState.PROGRESSING, "iris-old"),
        ({}, None, HealthState.PROGRESSING, "Nginx"),
        ({}, {"shares": {"iris-old": 100}}, HealthState.PROGRESSING, "Nginx"),
        ({}, "as asked", HealthState.READY, ""),
    ],
)
def test_health_with_a_router_is_that_of_all_that_answer(old, shares, state, words):
    wanted = routed(10, "iris-old")
    if shares == "as asked":
        shares = LocalTarget().render(wanted)[0]["spec"]["router"]
    beside = [] if old is None else [revision("iris-old", **old)]
    health = LocalTarget().health(wanted, observed(revision(), *beside, shares=shares))
    assert health.state is state
    assert words in health.why


def test_the_endpoint_with_a_router_is_the_service_as_soon_as_anybody_answers_there():
    seen = observed(revision(), active="iris-old", url="http://127.0.0.1:8080")
    assert LocalTarget().endpoint(routed(0, "iris-old", 10), seen).url == "http://127.0.0.1:8080"
    assert LocalTarget().endpoint(routed(0), seen).url == "http://127.0.0.1:1"
