"""Values that exist are valid: everything else is refused with field, value and rule."""

import dataclasses
import json

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    Endpoint,
    Health,
    HealthState,
    ModelSource,
    Release,
    Resources,
    Scaling,
    Service,
    Traffic,
    to_plain,
)

DIGEST = "sha256:" + "a" * 64


def model(**changes):
    return ModelSource(**{"uri": "s3://bucket/iris/1", "format": "sklearn", "name": "iris", **changes})


@pytest.mark.parametrize("name", ["a", "iris", "iris-2", "a" * 53])
def test_service_accepts_names_that_kubernetes_takes(name):
    assert Service(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "Iris", "iris_1", "-iris", "iris-", "1ris", "a" * 54, "iris.v1", "iris/..", "ïris", "a b", None, 3]
)
def test_service_refuses_other_names(name):
    with pytest.raises(InvalidValue) as caught:
        Service(name=name)
    assert caught.value.field == "Service.name"
    assert caught.value.value == name
    assert repr(name) in str(caught.value)
    assert "RFC" in caught.value.rule


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Service(name="a", namespace="Prod"), "Service.namespace"),
        (lambda: Service(name="a", framework="rails"), "Service.framework"),
        (lambda: Service(name="a", port=0), "Service.port"),
        (lambda: Service(name="a", port=65536), "Service.port"),
        (lambda: Service(name="a", port=True), "Service.port"),
        (lambda: Service(name="a", port="80"), "Service.port"),
        (lambda: Service(name="a", service_account="My Account"), "Service.service_account"),
        (lambda: Service(name="a", labels={"a b": "c"}), "Service.labels key"),
        (lambda: Service(name="a", labels={"team": "data science"}), "Service.labels['team']"),
        (lambda: Service(name="a", labels={"team": "x" * 64}), "Service.labels['team']"),
        (lambda: Service(name="a", annotations={"note": 1}), "Service.annotations['note']"),
        (lambda: Service(name="a", env={"1A": "x"}), "Service.env key"),
        (lambda: Service(name="a", env={"A": 1}), "Service.env['A']"),
        (lambda: Traffic(percent=-1), "Traffic.percent"),
        (lambda: Traffic(percent=101), "Traffic.percent"),
        (lambda: Traffic(percent=12.5), "Traffic.percent"),
        (lambda: Traffic(percent=10, rest={"a": 80, "b": 20}), "Traffic.rest"),
        (lambda: Traffic(percent=10, rest={"a": 80}), "Traffic.rest"),
        (lambda: Traffic(percent=100, rest={"a": 0}), "Traffic.rest"),
        (lambda: Traffic(percent=10, rest={"a": -10, "b": 100}), "Traffic.rest['a']"),
        (lambda: Traffic(percent=10, rest={"A_B": 90}), "Traffic.rest key"),
        (lambda: Scaling(min_replicas=-1), "Scaling.min_replicas"),
        (lambda: Scaling(min_replicas=3, max_replicas=2), "Scaling.max_replicas"),
        (lambda: Scaling(min_replicas=0, max_replicas=0), "Scaling.max_replicas"),
        (lambda: Scaling(metric="luck"), "Scaling.metric"),
        (lambda: Scaling(metric="cpu", target=101), "Scaling.target"),
        (lambda: Resources(cpu="two"), "Resources.cpu"),
        (lambda: Resources(cpu="-1"), "Resources.cpu"),
        (lambda: Resources(memory="1GB"), "Resources.memory"),
        (lambda: Resources(memory="1 Gi"), "Resources.memory"),
        (lambda: Resources(gpu=-1), "Resources.gpu"),
        (lambda: model(uri=""), "ModelSource.uri"),
        (lambda: model(uri="s3://"), "ModelSource.uri"),
        (lambda: model(uri="3s://bucket"), "ModelSource.uri"),
        (lambda: model(uri="s3://bucket/a\nb"), "ModelSource.uri"),
        (lambda: model(format="Sci Kit"), "ModelSource.format"),
        (lambda: model(name="../etc"), "ModelSource.name"),
        (lambda: model(version="v1"), "ModelSource.version"),
        (lambda: model(version=1), "ModelSource.version"),
        (lambda: model(version="²"), "ModelSource.version"),
        (lambda: model(digest="sha256:abc"), "ModelSource.digest"),
        (lambda: model(digest="md5:" + "a" * 32), "ModelSource.digest"),
        (lambda: Endpoint(name="a", url="ftp://x", model="a", revision="a-1"), "Endpoint.url"),
        (lambda: Endpoint(name="a", url="localhost:80", model="a", revision="a-1"), "Endpoint.url"),
        (lambda: Health(state=HealthState.FAILED), "Health.why"),
    ],
)
def test_invalid_values_are_refused_by_field(build, field):
    with pytest.raises(InvalidValue) as caught:
        build()
    assert caught.value.field == field
    assert field in str(caught.value)


def test_a_password_in_a_uri_is_refused_and_not_repeated():
    with pytest.raises(InvalidValue) as caught:
        model(uri="https://user:hunter2@store/model")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("quantity", ["1", "500m", "0.5", "1Gi", "1e3", "2E", "100Ki"])
def test_quantities_of_kubernetes_are_accepted(quantity):
    assert Resources(cpu=quantity, memory=quantity).cpu == quantity


@pytest.mark.parametrize(
    "uri", ["/models/iris", "models/iris", "file:///m", "s3://b/k", "gs://b", "hf://org/m", "oci://r/m"]
)
def test_paths_and_uris_are_accepted(uri):
    assert model(uri=uri).uri == uri


def test_values_cannot_be_changed():
    service = Service(name="a", labels={"team": "x"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        service.name = "b"
    with pytest.raises(TypeError):
        service.labels["team"] = "y"


def test_labels_are_kept_apart_from_the_callers_dict():
    labels = {"team": "x"}
    service = Service(name="a", labels=labels)
    labels["team"] = "y"
    assert service.labels["team"] == "x"


def test_revision_follows_what_runs_and_nothing_else():
    base = Release(service=Service(name="iris"), model=model())
    same = [
        dataclasses.replace(base, traffic=Traffic(percent=0)),
        dataclasses.replace(base, service=Service(name="iris", scaling=Scaling(min_replicas=3))),
        dataclasses.replace(base, service=Service(name="iris", labels={"team": "x"})),
    ]
    other = [
        dataclasses.replace(base, model=model(version="2")),
        dataclasses.replace(base, model=model(digest=DIGEST)),
        dataclasses.replace(base, service=Service(name="iris", env={"A": "b"})),
        dataclasses.replace(base, service=Service(name="iris", resources=Resources(cpu="2"))),
    ]
    assert {release.revision for release in same} == {base.revision}
    assert len({release.revision for release in [base, *other]}) == 1 + len(other)
    assert base.revision.startswith("iris-")


def test_revision_fits_where_the_longest_name_is_used():
    release = Release(service=Service(name="a" * 53), model=model())
    assert len(release.revision) <= 63


def test_plain_values_survive_json():
    release = Release(service=Service(name="iris", labels={"team": "x"}), model=model(digest=DIGEST, version="3"))
    plain = to_plain(release)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["service"]["labels"] == {"team": "x"}
    assert to_plain(Health.ready()) == {"state": "Ready", "why": ""}


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://iris.prod.svc", ("iris", "prod")),
        ("http://iris.prod.svc.cluster.local:8080/x", ("iris", "prod")),
        ("http://iris.prod.example.com", None),
        ("http://127.0.0.1:80", None),
        ("http://iris.prod", None),
        ("http://svc", None),
    ],
)
def test_an_address_in_a_cluster_is_told_from_others(url, where):
    assert Endpoint(name="iris", url=url, model="iris", revision="iris-1").in_cluster == where


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"secrets": "bucket"}, "Service.secrets"),
        ({"secrets": ["ok", "Not Ok"]}, "Service.secrets[1]"),
        ({"image": "Server:1"}, "Service.image"),
        ({"image": "server:1 --privileged"}, "Service.image"),
        ({"image": ""}, "Service.image"),
        ({"service_account": "a/b"}, "Service.service_account"),
    ],
)
def test_names_that_reach_a_pod_are_checked(changes, field):
    with pytest.raises(InvalidValue) as refused:
        Service(name="iris", **changes)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "image",
    [
        "server",
        "team/server:1.0",
        "registry.example:5000/team/server@sha256:" + "a" * 64,
        "ghcr.io/x/y-z_w.v:1.0+2"[:-2],
    ],
)
def test_image_references_as_registries_write_them(image):
    assert Service(name="iris", image=image).image == image


def test_secrets_and_image_are_part_of_what_runs():
    model = ModelSource(uri="s3://m/1", format="sklearn", name="iris")
    plain = Release(service=Service(name="iris"), model=model)
    names = {
        Release(service=Service(name="iris", **changes), model=model).revision
        for changes in ({"secrets": ["a"]}, {"image": "a:1"}, {"image": "a:2"})
    }
    assert len(names | {plain.revision}) == 4


def version(number, **traffic):
    model = ModelSource(uri=f"s3://models/iris/{number}", format="sklearn", name="iris")
    return Release(service=Service(name="iris"), model=model, traffic=Traffic(**traffic))


def test_a_part_stands_beside_what_serves():
    first, second, third = version(1), version(2, percent=20), version(3, percent=10)
    assert second.next_to(None) == second
    assert second.next_to(first).traffic.others == {first.revision: 80}
    assert second.next_to(first).beside == (first,)
    # what stood beside the one before answers the rest
    assert third.next_to(second.next_to(first)).beside == (first,)
    assert version(2).next_to(second.next_to(first)).beside == ()
    assert second.next_to(second).traffic.base is None


def test_several_keep_a_part_each():
    first, second = version(1), version(2, percent=20)
    running = second.next_to(first)
    rest = {first.revision: 70, running.revision: 20}
    third = version(3, percent=10, rest=rest).next_to(running)
    assert third.traffic.others == rest
    assert third.traffic.base == first.revision
    assert [one.revision for one in third.beside] == list(rest)
    # of what stands beside it, a release knows what it is and no more
    assert all(one.traffic == Traffic() and not one.beside for one in third.beside)
    assert third.revision == version(3).revision


@pytest.mark.parametrize("serves", [True, False])
def test_a_revision_that_does_not_run_can_keep_nothing(serves):
    with pytest.raises(InvalidValue, match="beside this one runs") as refused:
        version(3, percent=10, rest={"iris-0": 90}).next_to(version(1) if serves else None)
    assert refused.value.field == "Traffic.rest key"


@pytest.mark.parametrize(
    ("traffic", "beside"),
    [({"percent": 100}, [version(1)]), ({"percent": 20}, [version(2)]), ({"percent": 20}, [version(1), version(1)])],
)
def test_what_cannot_stand_beside_a_release(traffic, beside):
    with pytest.raises(InvalidValue, match=r"Release\.beside"):
        dataclasses.replace(version(2, **traffic), beside=beside)
