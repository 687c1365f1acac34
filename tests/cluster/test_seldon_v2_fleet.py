"""Many services of Seldon Core 2 at once: each object is written once, and one failure is no other's."""

import json
import threading
from dataclasses import replace

import pytest
import yaml
from harness.cluster import eventually
from harness.fleet import FAIL
from harness.seldon_v2 import BROKEN, Route, SeldonV2

from longshore.cli.app import run
from longshore.cluster import ClusterRuntime, Session
from longshore.errors import ConfigError
from longshore.fleet import deploy_fleet
from longshore.release import deploy, previous_release
from longshore.spec import ModelSource, Release, Scaling, SeldonV2Options, Service
from longshore.targets.base import Ref, Selection
from longshore.targets.seldon_v2 import SeldonV2Target

VERSION = "mlops.seldon.io/v1alpha1"
MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")
NEXT = replace(MODEL, uri="s3://models/iris/2")
SERVICES = 12


@pytest.fixture
def seldon(seldon_v2_kinds):
    with SeldonV2(seldon_v2_kinds) as seldon:
        yield seldon


@pytest.fixture
def place(seldon, seldon_v2_kinds, namespace):
    metadata = {"name": "mlserver", "namespace": namespace}
    seldon_v2_kinds.apply(
        {
            "apiVersion": VERSION,
            "kind": "Server",
            "metadata": metadata,
            "spec": {"serverConfig": "mlserver", "replicas": 1},
        }
    )
    path = f"/apis/{VERSION}/namespaces/{namespace}/servers/mlserver"

    def ready():
        conditions = (seldon_v2_kinds.get(path).get("status") or {}).get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    eventually(ready, "the Server")
    return namespace


@pytest.fixture
def bring_up(runtime):
    def go(releases, **options):
        options = {"timeout_seconds": 60, "patience_seconds": 2, **options}
        return deploy_fleet(releases, target=SeldonV2Target(), runtime=runtime, **options)

    return go


def release(place, number, model=MODEL, **changes):
    return Release(service=Service(name=f"iris-{number:02}", namespace=place, **changes), model=model)


def fleet_of(place, model=MODEL, **changes):
    return [release(place, number, model, **changes) for number in range(SERVICES)]


def names(runtime, place, kind="Model"):
    return {m["metadata"]["name"] for m in runtime.look(Selection(VERSION, kind, place))}


def routes(seldon, place):
    return {name: route for (namespace, name), route in seldon.routes.items() if namespace == place}


def writes(proxy):
    return [seen for seen in proxy.seen if seen.method == "PATCH"]


def test_all_come_up_with_one_write_for_each_object(place, bring_up, runtime, seldon, proxy):
    first = fleet_of(place)
    report = bring_up(first)
    assert (len(report.deployed), report.unchanged, report.failed) == (SERVICES, [], {})
    assert routes(seldon, place) == {one.service.name: Route({one.revision: 100}) for one in first}
    # an Experiment and a Model each
    assert len(writes(proxy)) == 2 * SERVICES
    # Experiments, Models, and the Servers beside them
    assert proxy.count("GET", watches=True) == 3
    assert proxy.count("POST") == proxy.count("DELETE") == 1
    proxy.seen.clear()
    again = bring_up(first)
    assert (again.deployed, len(again.unchanged)) == ([], SERVICES)
    assert writes(proxy) == []


def test_an_update_that_fails_is_no_other_services(place, bring_up, runtime, seldon):
    first, told = fleet_of(place), []
    bring_up(first)
    second = fleet_of(place, NEXT)
    second[3] = release(place, 3, NEXT, annotations={FAIL: "load"})
    second[5] = release(place, 5, NEXT, seldon_v2=SeldonV2Options(requirements=["onnx"]))
    report = bring_up(second, on_progress=told.append)
    assert set(report.failed) == {f"{place}/iris-03", f"{place}/iris-05"}
    assert BROKEN in report.failed[f"{place}/iris-03"]
    assert "none of mlserver offers onnx" in report.failed[f"{place}/iris-05"]
    assert len(report.deployed) == SERVICES - 2
    serving = [first[number] if number in (3, 5) else second[number] for number in range(SERVICES)]
    assert routes(seldon, place) == {one.service.name: Route({one.revision: 100}) for one in serving}
    assert names(runtime, place) == {one.revision for one in serving}
    assert all(None not in seldon.history[place, one.service.name] for one in serving)
    assert any("2 failed and stay as they were" in line for line in told)
    experiment = Ref(VERSION, "Experiment", "iris-00", place)
    assert previous_release(experiment, runtime) == first[0]


def test_a_first_one_that_fails_leaves_nothing(place, bring_up, runtime, seldon):
    wanted = [release(place, 0), release(place, 1, annotations={FAIL: "load"})]
    report = bring_up(wanted)
    assert set(report.failed) == {f"{place}/iris-01"}
    assert names(runtime, place, "Experiment") == {"iris-00"}
    assert names(runtime, place) == {wanted[0].revision}


def test_what_the_server_refuses_is_told_of_its_service(place, bring_up, runtime):
    # longshore takes any number, and Seldon's schema 32 bits of it
    wanted = [release(place, 0), release(place, 1, scaling=Scaling(min_replicas=2**31))]
    report = bring_up(wanted)
    assert list(report.failed) == [f"{place}/iris-01"]
    assert "spec.replicas" in report.failed[f"{place}/iris-01"]
    assert names(runtime, place, "Experiment") == {"iris-00"}


def test_what_is_missing_is_told_before_anything_is_applied(place, bring_up, runtime, proxy):
    wanted = fleet_of(place, seldon_v2=SeldonV2Options(storage_secret="nowhere"))
    with pytest.raises(
        ConfigError, match=f"iris-00: SeldonV2Options.storage_secret = 'nowhere' .*; and {SERVICES - 5} more"
    ):
        bring_up(wanted)
    assert writes(proxy) == []
    # one look for all of them
    assert sum("secrets" in seen.path for seen in proxy.seen) == 1


def test_a_deployment_of_one_of_them_waits_and_is_waited_for(place, bring_up, runtime, seldon, seldon_v2_kinds):
    bring_up(fleet_of(place))
    session = Session.from_kubeconfig(seldon_v2_kinds.kubeconfig)
    other, done = ClusterRuntime(session), []
    bearers = [Ref(VERSION, "Experiment", f"iris-{number:02}", place) for number in range(SERVICES)]

    def alone():
        deploy(release(place, 0, NEXT), target=SeldonV2Target(), runtime=other, timeout_seconds=30)
        done.append("alone")

    with runtime.lock_all(bearers):
        thread = threading.Thread(target=alone)
        thread.start()
        thread.join(2)
        assert done == []
    thread.join(30)
    assert done == ["alone"]
    with other.lock(bearers[0]):
        thread = threading.Thread(target=lambda: done.append(bring_up(fleet_of(place))))
        thread.start()
        thread.join(2)
        assert len(done) == 1
    thread.join(30)
    assert len(done[1].deployed) == 1
    session.close()


def test_the_command_deploys_a_file(place, seldon, seldon_v2_kinds, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(seldon_v2_kinds.kubeconfig))
    services = [
        {"name": one.service.name, "model": {"uri": one.model.uri, "format": "sklearn"}} for one in fleet_of(place)
    ]
    services[1]["annotations"] = {FAIL: "load"}
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump({"defaults": {"namespace": place}, "services": services}))
    assert run(["fleet", str(file), "--timeout", "60"]) == 1
    told = capsys.readouterr()
    assert f"{SERVICES - 1} deployed, 0 unchanged, 1 failed" in told.out
    assert f"{place}/iris-01 failed: Seldon cannot load the Model iris-01-" in told.err
    del services[1]
    file.write_text(yaml.safe_dump({"defaults": {"namespace": place}, "services": services}))
    assert run(["fleet", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["unchanged"]) == SERVICES - 1
