"""Seldon Core 2 on a real API server with its own CRDs, and a stand-in that writes statuses as Seldon does."""

import json
import time
from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL, READY_DELAY
from harness.seldon_v2 import BROKEN, Route, SeldonV2
from kfp.dsl import Artifact

from longshore import components
from longshore.artifacts import read_endpoint, write_model
from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import find_endpoint
from longshore.errors import ConfigError, DeployError, InvalidValue
from longshore.rbac import deployer_objects
from longshore.release import deploy, previous_release, remove
from longshore.spec import (
    ModelSource,
    Release,
    Scaling,
    SeldonV2Explainer,
    SeldonV2Options,
    SeldonV2Pipeline,
    SeldonV2Server,
    SeldonV2Step,
    Service,
    Traffic,
)
from longshore.targets.base import Ref, Selection
from longshore.targets.seldon_v2 import SeldonV2Target

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")
NEXT = replace(MODEL, uri="s3://models/iris/2")
LATER = replace(MODEL, uri="s3://models/iris/3")
VERSION = "mlops.seldon.io/v1alpha1"
OWN_SERVER = SeldonV2Options(own_server=SeldonV2Server())


@pytest.fixture
def seldon(seldon_v2_kinds):
    with SeldonV2(seldon_v2_kinds) as seldon:
        yield seldon


def add_server(cluster, namespace, name="mlserver", **spec):
    metadata = {"name": name, "namespace": namespace}
    cluster.apply(
        {"apiVersion": VERSION, "kind": "Server", "metadata": metadata, "spec": {"serverConfig": "mlserver", **spec}}
    )


@pytest.fixture
def service(seldon, seldon_v2_kinds, namespace) -> Service:
    add_server(seldon_v2_kinds, namespace, replicas=2)
    return Service(name="iris", namespace=namespace)


@pytest.fixture
def bring_up(runtime):
    def run(service, model=MODEL, percent=100, mirror=0, rest=None, **options):
        options = {"timeout_seconds": 30, "patience_seconds": 2, **options}
        traffic = Traffic(percent=percent, mirror_percent=mirror, rest=rest or {})
        release = Release(service=service, model=model, traffic=traffic)
        return deploy(release, target=SeldonV2Target(), runtime=runtime, **options)

    return run


def names(runtime, service, kind="Model"):
    return {m["metadata"]["name"] for m in runtime.look(Selection(VERSION, kind, service.namespace))}


def key(service):
    return service.namespace, service.name


def never_gone(seldon, service):
    return None not in seldon.history[key(service)]


def test_a_model_is_deployed_and_its_clients_keep_one_name(service, bring_up, runtime, seldon):
    done = bring_up(service)
    assert seldon.routes[key(service)] == Route({done.release.revision: 100})
    assert done.endpoint.headers == {"seldon-model": "iris.experiment"}
    # deployed again, it changes nothing
    version = runtime.get(Ref(VERSION, "Experiment", "iris", service.namespace))["metadata"]["resourceVersion"]
    assert bring_up(service).release == done.release
    again = runtime.get(Ref(VERSION, "Experiment", "iris", service.namespace))["metadata"]
    assert again["resourceVersion"] == version
    then = bring_up(service, NEXT)
    assert then.endpoint.headers == done.endpoint.headers
    assert seldon.routes[key(service)] == Route({then.release.revision: 100})
    assert names(runtime, service) == {then.release.revision}
    assert never_gone(seldon, service)


def test_a_canary_is_promoted(service, bring_up, runtime, seldon):
    first = bring_up(service).release.revision
    canary = bring_up(service, NEXT, 20)
    second = canary.release.revision
    assert seldon.routes[key(service)] == Route({first: 80, second: 20})
    assert canary.endpoint.at_revision().headers == {"seldon-model": second}
    half = bring_up(service, NEXT, 50)
    assert seldon.routes[key(service)] == Route({first: 50, second: 50})
    assert half.release.revision == second
    bring_up(service, NEXT)
    assert seldon.routes[key(service)] == Route({second: 100})
    assert names(runtime, service) == {second}
    # without traffic first, and never without an answer
    assert seldon.history[key(service)] == [
        Route({first: 100}),
        Route({first: 80, second: 20}),
        Route({first: 50, second: 50}),
        Route({second: 100}),
    ]


def test_three_share_the_requests_and_the_second_gets_all(service, bring_up, runtime, seldon):
    first = bring_up(service).release.revision
    second = bring_up(service, NEXT, 20).release.revision
    third = bring_up(service, LATER, 10, rest={first: 70, second: 20}).release.revision
    assert seldon.routes[key(service)] == Route({first: 70, second: 20, third: 10})
    bring_up(service, NEXT)
    assert seldon.routes[key(service)] == Route({second: 100})
    assert names(runtime, service) == {second}
    assert never_gone(seldon, service)


def test_a_canary_is_taken_back(service, bring_up, runtime, seldon):
    first = bring_up(service)
    bring_up(service, NEXT, 20)
    back = bring_up(service)
    assert back.release == first.release
    assert names(runtime, service) == {first.release.revision}
    assert never_gone(seldon, service)


def test_a_mirror_gets_copies_and_is_promoted(service, bring_up, runtime, seldon):
    first = bring_up(service).release.revision
    slow = replace(service, annotations={READY_DELAY: "1s"})
    second = bring_up(slow, NEXT, 0, mirror=30).release.revision
    assert seldon.routes[key(service)] == Route({first: 100}, (second, 30))
    bring_up(slow, NEXT)
    assert seldon.routes[key(service)] == Route({second: 100})
    assert names(runtime, service) == {second}
    assert never_gone(seldon, service)


def test_what_served_before_is_rolled_back_to(service, bring_up, runtime, seldon):
    first = bring_up(service)
    bring_up(service, NEXT)
    earlier = previous_release(Ref(VERSION, "Experiment", "iris", service.namespace), runtime)
    assert earlier == first.release
    bring_up(earlier.service, earlier.model)
    assert seldon.routes[key(service)] == Route({first.release.revision: 100})
    assert names(runtime, service) == {first.release.revision}
    assert never_gone(seldon, service)


def test_an_update_that_cannot_be_loaded_leaves_what_served(service, bring_up, runtime, seldon):
    first = bring_up(service)
    with pytest.raises(DeployError) as failure:
        bring_up(replace(service, annotations={FAIL: "load"}), NEXT, 20)
    assert BROKEN in str(failure.value)
    assert failure.value.restored == first.release.revision
    assert seldon.history[key(service)] == [Route({first.release.revision: 100})]
    assert names(runtime, service) == {first.release.revision}


def test_a_first_one_that_cannot_be_loaded_leaves_nothing(service, bring_up, runtime):
    with pytest.raises(DeployError, match="Nothing served before, and nothing was left behind"):
        bring_up(replace(service, annotations={FAIL: "load"}))
    assert names(runtime, service) == names(runtime, service, "Experiment") == set()


def test_a_model_that_no_server_takes_says_what_is_missing(service, bring_up, runtime, seldon):
    first = bring_up(service)
    wanted = replace(service, seldon_v2=SeldonV2Options(requirements=["onnx"]))
    with pytest.raises(DeployError, match=r"no matching servers are available \(none of mlserver offers onnx\)"):
        bring_up(wanted, NEXT)
    assert seldon.history[key(service)] == [Route({first.release.revision: 100})]
    assert names(runtime, service) == {first.release.revision}


def test_a_model_waits_for_room_that_may_come(service, bring_up, seldon_v2_kinds):
    told = []

    def on_progress(sentence):
        told.append(sentence)
        if "suitable replicas" in sentence:
            add_server(seldon_v2_kinds, service.namespace, replicas=3)

    wanted = replace(service, scaling=Scaling(min_replicas=3))
    bring_up(wanted, patience_seconds=20, on_progress=on_progress)
    assert any("no matching server had enough suitable replicas" in line for line in told)


def test_ready_of_before_a_change_is_not_believed(service, bring_up, seldon):
    first = bring_up(service).release.revision
    # the Experiment's status goes on saying that all is well
    seldon.lag = 1.5
    second = bring_up(service, NEXT, 20).release.revision
    assert seldon.routes[key(service)] == Route({first: 80, second: 20})
    bring_up(service, NEXT)
    assert seldon.routes[key(service)] == Route({second: 100})


def test_an_operator_that_is_away_is_not_taken_for_success(service, bring_up, seldon):
    first = bring_up(service).release.revision
    second = bring_up(service, NEXT, 20).release.revision
    told = []

    def on_progress(sentence):
        told.append(sentence)
        if "has not looked at the Experiment iris" in sentence:
            seldon.away = False

    seldon.away = True
    bring_up(service, NEXT, on_progress=on_progress)
    assert any("has not looked at the Experiment iris as it is now" in line for line in told)
    assert seldon.history[key(service)][-2:] == [Route({first: 80, second: 20}), Route({second: 100})]


def test_what_the_scheduler_refuses_is_told_and_taken_back(service, bring_up, runtime, seldon, seldon_v2_kinds):
    anchor = {"name": "old", "namespace": service.namespace}
    spec = {"storageUri": "s3://models/old", "requirements": ["sklearn"]}
    seldon_v2_kinds.apply({"apiVersion": VERSION, "kind": "Model", "metadata": anchor, "spec": spec})
    taking = replace(service, seldon_v2=SeldonV2Options(default="old"))
    done = bring_up(taking)
    assert seldon.routes[key(service)] == Route({done.release.revision: 100, "old": 0})
    other = replace(service, name="other")
    first = bring_up(other)
    with pytest.raises(DeployError, match="Resource old already in experiment iris as a baseline"):
        bring_up(replace(taking, name="other"), NEXT)
    assert seldon.routes[key(other)] == Route({first.release.revision: 100})
    # what was refused once is no obstacle for good
    assert bring_up(other, NEXT).release.model == NEXT
    remove(taking, target=SeldonV2Target(), runtime=runtime)
    assert "old" in names(runtime, service)


def test_replicas_change_in_place_and_are_awaited(service, bring_up, runtime):
    first = bring_up(service)
    more = bring_up(replace(service, scaling=Scaling(min_replicas=2)))
    assert more.release.revision == first.release.revision
    model = runtime.get(Ref(VERSION, "Model", first.release.revision, service.namespace))
    assert (model["spec"]["replicas"], model["status"]["availableReplicas"]) == (2, 2)
    scaled = bring_up(replace(service, scaling=Scaling(min_replicas=1, max_replicas=2)))
    spec = runtime.get(Ref(VERSION, "Model", scaled.release.revision, service.namespace))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], "replicas" in spec) == (1, 2, False)


def test_a_model_that_is_lost_at_the_last_moment_is_taken_out_again(service, bring_up, seldon):
    first = bring_up(service)
    with pytest.raises(DeployError, match="replica lost"):
        bring_up(replace(service, annotations={FAIL: "lost"}), NEXT)
    assert seldon.routes[key(service)] == Route({first.release.revision: 100})


def test_a_server_of_its_own_comes_and_goes_with_the_revision(service, bring_up, runtime, seldon):
    own = replace(service, seldon_v2=OWN_SERVER, annotations={READY_DELAY: "1s"})
    first = bring_up(own).release.revision
    assert names(runtime, service, "Server") == {"mlserver", first}
    with pytest.raises(DeployError, match="the image cannot be pulled: .*none:1"):
        bring_up(replace(own, image="none:1", annotations={FAIL: "image"}), NEXT)
    assert names(runtime, service, "Server") == {"mlserver", first}
    second = bring_up(own, NEXT).release.revision
    assert names(runtime, service, "Server") == {"mlserver", second}
    with pytest.raises(DeployError, match="cannot be made after the ServerConfig ours: .* not found"):
        bring_up(replace(own, seldon_v2=SeldonV2Options(own_server=SeldonV2Server(config="ours"))), MODEL)
    assert seldon.routes[key(service)] == Route({second: 100})


def test_a_pipeline_and_an_explainer(service, bring_up, runtime, seldon, seldon_v2_kinds):
    scaler = {"name": "scaler", "namespace": service.namespace}
    spec = {"storageUri": "s3://models/scaler", "requirements": ["sklearn"]}
    steps = [SeldonV2Step(name="scaler"), SeldonV2Step(name="model", inputs=["scaler"])]
    options = SeldonV2Options(
        pipeline=SeldonV2Pipeline(steps=steps),
        explainer=SeldonV2Explainer(type="anchor_tabular", uri="s3://models/explainer"),
    )
    add_server(seldon_v2_kinds, service.namespace, replicas=2, extraCapabilities=["alibi-explain"])
    flow = replace(service, seldon_v2=options)
    with pytest.raises(DeployError, match="asks is not available: its steps are scaler, iris-"):
        bring_up(flow)
    assert names(runtime, service, "Pipeline") == set()
    seldon_v2_kinds.apply({"apiVersion": VERSION, "kind": "Model", "metadata": scaler, "spec": spec})
    first = bring_up(flow).release.revision
    assert names(runtime, service) == {"scaler", f"{first}-model", f"{first}-explainer"}
    canary = bring_up(flow, NEXT, 10)
    second = canary.release.revision
    assert seldon.routes[key(service)] == Route({first: 90, second: 10})
    assert canary.endpoint.at_revision().headers == {"seldon-model": f"{second}.pipeline"}
    with pytest.raises(InvalidValue, match="shares its requests out to pipelines"):
        bring_up(service, NEXT)
    bring_up(flow, NEXT)
    assert names(runtime, service, "Pipeline") == {second}
    remove(flow, target=SeldonV2Target(), runtime=runtime)
    assert names(runtime, service) == {"scaler"}
    assert never_gone(seldon, service) or seldon.history[key(service)][-1] is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (SeldonV2Options(storage_secret="nowhere"), "storage_secret"),
        (SeldonV2Options(server="nowhere"), "server"),
        (SeldonV2Options(default="nowhere"), "default"),
        (SeldonV2Options(requirements=["nowhere"]), "requirements"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_there_is_refused_before_anything_is_applied(service, bring_up, runtime, options, field):
    with pytest.raises(InvalidValue) as refused:
        bring_up(replace(service, seldon_v2=options))
    assert refused.value.field == f"SeldonV2Options.{field}"
    assert names(runtime, service) == names(runtime, service, "Experiment") == set()


def test_deletion_leaves_nothing(service, bring_up, runtime, seldon):
    bring_up(replace(service, seldon_v2=OWN_SERVER))
    bring_up(replace(service, seldon_v2=OWN_SERVER), NEXT, 20)
    remove(service, target=SeldonV2Target(), runtime=runtime)
    assert names(runtime, service) == names(runtime, service, "Experiment") == set()
    assert names(runtime, service, "Server") == {"mlserver"}
    assert key(service) not in seldon.routes
    leases = runtime.look(Selection("coordination.k8s.io/v1", "Lease", service.namespace))
    assert not [lease for lease in leases if "iris" in lease["metadata"]["name"]]
    # what is gone already is no error
    remove(service, target=SeldonV2Target(), runtime=runtime)


def test_one_write_for_each_object_that_changes(service, bring_up, proxy):
    bring_up(service)
    writes = [seen for seen in proxy.seen if seen.method == "PATCH"]
    # the Experiment twice: once more with all of the requests
    assert [seen.path.split("/")[-2] for seen in writes].count("models") == 1
    assert len(writes) == 3
    proxy.seen.clear()
    bring_up(service)
    assert [seen for seen in proxy.seen if seen.method == "PATCH"] == []


def test_the_steps_do_with_the_least_role(service, seldon, runtime, seldon_v2_kinds, monkeypatch):
    namespace = service.namespace
    for manifest in deployer_objects(namespace, service_account="worker", platforms=["seldon-v2"]):
        seldon_v2_kinds.apply(manifest)
    kubeconfig = seldon_v2_kinds.kubeconfig_of(namespace, "worker")
    session = Session.from_kubeconfig(kubeconfig)
    experiment = Ref(VERSION, "Experiment", "iris", namespace)
    eventually(lambda: ClusterRuntime(session).exists(experiment) is False, "the role takes effect", 10)
    session.close()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    model, endpoint = Artifact(), Artifact()
    where = {"platform": "seldon-v2", "namespace": namespace}

    def step(component, *given, **more):
        return components.get(component).python_func(*given, **more, namespace=namespace)

    write_model(model, MODEL)
    url, first, _ = step("deploy_seldon_v2", model, endpoint, name="iris", parameters={"a": "b"}, memory="1Mi")
    assert url == f"http://seldon-mesh.{namespace}.svc.cluster.local"
    write_model(model, NEXT)
    canary = {"parameters": {"a": "b"}, "memory": "1Mi", "traffic_percent": 20}
    _, second, replaced = step("deploy_seldon_v2", model, endpoint, name="iris", **canary)
    assert replaced == first
    assert seldon.routes[key(service)] == Route({first: 80, second: 20})
    step("promote_model", endpoint, "iris", platform="seldon-v2")
    assert read_endpoint(endpoint).headers == {"seldon-model": "iris.experiment"}
    assert find_endpoint("iris", **where).revision == second
    step("rollback_model", endpoint, "iris", platform="seldon-v2")
    assert seldon.routes[key(service)] == Route({first: 100})
    step("delete_seldon_v2", "iris")
    with pytest.raises(ConfigError):
        find_endpoint("iris", **where)
    assert names(runtime, service) == set()


def test_without_seldon_the_deploy_says_so(service, bring_up, seldon, runtime):
    seldon.away = True
    started = time.monotonic()
    with pytest.raises(DeployError, match="Seldon has said nothing of the Model iris-"):
        bring_up(service, timeout_seconds=2)
    assert time.monotonic() - started < 30
    noted = json.dumps([m["metadata"] for m in runtime.look(Selection(VERSION, "Model", service.namespace))])
    assert "iris" not in noted
