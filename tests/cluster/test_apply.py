"""Applying, reading and deleting objects on a real API server; a proxy counts the requests."""

import pytest
from harness.cluster import eventually
from harness.objects import config_map, deployment

from longshore.cluster import ClusterRuntime, Session
from longshore.errors import ClusterError
from longshore.targets.base import Ref


def ref(namespace: str, name: str = "one") -> Ref:
    return Ref("v1", "ConfigMap", name, namespace)


def test_an_object_is_made_changed_and_deleted(runtime, namespace):
    assert runtime.get(ref(namespace)) is None
    assert runtime.apply([config_map(namespace)]) == [ref(namespace)]
    made = runtime.get(ref(namespace))
    assert made["data"] == {"key": "value"}
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "longshore"
    (manager,) = made["metadata"]["managedFields"]
    assert (manager["manager"], manager["operation"]) == ("longshore", "Apply")
    runtime.apply([config_map(namespace, other="1")])
    assert runtime.get(ref(namespace))["data"] == {"other": "1"}
    runtime.delete([ref(namespace)])
    assert runtime.get(ref(namespace)) is None
    runtime.delete([ref(namespace)])


def test_an_object_without_a_namespace_goes_to_the_sessions(cluster, namespace):
    session = Session.from_kubeconfig(cluster.kubeconfig)
    session.namespace = namespace
    runtime = ClusterRuntime(session)
    manifest = config_map(namespace)
    del manifest["metadata"]["namespace"]
    assert runtime.apply([manifest]) == [ref(namespace)]
    assert runtime.get(Ref("v1", "ConfigMap", "one")) is not None
    session.close()


@pytest.mark.parametrize("count", [1, 50])
def test_what_is_as_wanted_is_not_written(runtime, proxy, namespace, count):
    manifests = [config_map(namespace, f"n{number}") for number in range(count)]
    runtime.apply(manifests)
    assert proxy.count("PATCH") == count
    proxy.seen.clear()
    runtime.apply(manifests)
    assert proxy.count("PATCH") == 0
    # one list for many, one read for one
    assert proxy.count("GET") == 1
    manifests[0]["data"]["key"] = "changed"
    runtime.apply(manifests)
    assert proxy.count("PATCH") == 1


def test_quantities_that_the_server_writes_its_own_way_are_no_change(runtime, proxy, namespace):
    runtime.apply([deployment(namespace)])
    requests = runtime.get(Ref("apps/v1", "Deployment", "web", namespace))["spec"]["template"]["spec"]["containers"][0]
    assert requests["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    proxy.seen.clear()
    runtime.apply([deployment(namespace)])
    assert proxy.count("PATCH") == 0


def test_what_somebody_else_changed_is_a_conflict_that_names_him(runtime, cluster, namespace):
    runtime.apply([config_map(namespace)])
    cluster.apply(config_map(namespace, key="theirs"), manager="kubectl-edit")
    with pytest.raises(ClusterError) as refused:
        runtime.apply([config_map(namespace)])
    assert refused.value.reason == "Conflict"
    assert ".data.key belongs to 'kubectl-edit'" in str(refused.value)
    assert runtime.get(ref(namespace))["data"] == {"key": "theirs"}
    ClusterRuntime(runtime.session, force=True).apply([config_map(namespace)])
    assert runtime.get(ref(namespace))["data"] == {"key": "value"}


def test_a_field_that_others_own_is_left_alone(runtime, cluster, namespace):
    without = deployment(namespace)
    del without["spec"]["replicas"]
    runtime.apply([without])
    path = cluster.path(without)
    scale = {"spec": {"replicas": 3}}
    cluster.request("PATCH", f"{path}/scale", scale, kind="application/merge-patch+json")
    without["spec"]["minReadySeconds"] = 1
    runtime.apply([without])
    assert cluster.get(path)["spec"]["replicas"] == 3


def test_a_dry_run_checks_and_keeps_nothing(runtime, namespace):
    assert runtime.apply([config_map(namespace)], dry_run=True) == [ref(namespace)]
    assert runtime.get(ref(namespace)) is None
    with pytest.raises(ClusterError, match=r"spec\.template\.spec\.containers\[0\]\.name"):
        broken = deployment(namespace)
        broken["spec"]["template"]["spec"]["containers"][0]["name"] = "Not a name"
        runtime.apply([broken], dry_run=True)


def test_one_refusal_does_not_keep_the_others_back(runtime, namespace):
    manifests = [config_map(namespace, f"n{number}") for number in range(6)]
    manifests[2]["data"] = {"not a key": "1"}
    manifests[4]["metadata"]["namespace"] = "nowhere"
    with pytest.raises(ClusterError) as refused:
        runtime.apply(manifests)
    assert "2 of 6 objects were refused" in str(refused.value)
    assert "n2 could not be applied: data[not a key]" in str(refused.value)
    assert "the namespace nowhere does not exist" in str(refused.value)
    assert [runtime.get(ref(namespace, f"n{n}")) is not None for n in (0, 1, 3, 5)] == [True] * 4


def test_objects_are_deleted_by_label(runtime, cluster, namespace):
    mine = config_map(namespace, "mine")
    mine["metadata"]["labels"] = {"longshore.dev/service": "iris"}
    other = config_map(namespace, "other")
    runtime.apply([mine, other])
    cluster.apply({**config_map(namespace, "foreign"), "metadata": {**mine["metadata"], "name": "foreign"}})
    found = runtime.delete_labelled([("v1", "ConfigMap")], namespace, {"longshore.dev/service": "iris"})
    assert found == [ref(namespace, "mine")]
    left = {item["metadata"]["name"] for item in cluster.get(f"/api/v1/namespaces/{namespace}/configmaps")["items"]}
    assert {"other", "foreign"} <= left
    assert "mine" not in left


def test_what_a_finalizer_holds_is_told(runtime, namespace, monkeypatch):
    monkeypatch.setattr("longshore.cluster.runtime._GONE_SECONDS", 0.5)
    manifest = config_map(namespace)
    manifest["metadata"]["finalizers"] = ["example.com/slow"]
    runtime.apply([manifest])
    with pytest.raises(ClusterError, match=r"ConfigMap .*/one \(held by its finalizers example.com/slow"):
        runtime.delete([ref(namespace)])


def test_several_clusters_at_once(plane, cluster, tmp_path):
    """Here the same one twice, as two people: a session never speaks with another's credentials."""
    space = cluster.namespace()
    admin = Session.from_kubeconfig(cluster.kubeconfig)
    poor = Session.from_kubeconfig(cluster.kubeconfig_of(space, "poor"))
    ClusterRuntime(admin).apply([config_map(space)])
    with pytest.raises(ClusterError, match="poor may not get configmaps"):
        ClusterRuntime(poor).get(ref(space))
    assert ClusterRuntime(admin).get(ref(space)) is not None
    for session in (admin, poor):
        session.close()


def test_one_deployment_at_a_time(cluster, namespace):
    thing = Ref("apps/v1", "Deployment", "web", namespace)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    sessions = [Session.from_kubeconfig(cluster.kubeconfig) for _ in range(2)]
    first, second = (ClusterRuntime(session) for session in sessions)
    with first.lock(thing):
        (lease,) = cluster.get(path)["items"]
        holder = lease["spec"]["holderIdentity"]
        assert lease["metadata"]["name"] == "longshore-deployment-web"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("longshore.cluster.runtime._LOCK_SECONDS", 0.2)
            with pytest.raises(ClusterError, match=f"another deployment .* held by {holder}"), second.lock(thing):
                pass
    assert cluster.get(path)["items"] == []
    with second.lock(thing):
        assert len(cluster.get(path)["items"]) == 1
    for session in sessions:
        session.close()


def test_a_lock_whose_holder_died_is_taken_over(cluster, namespace):
    thing = Ref("apps/v1", "Deployment", "web", namespace)
    cluster.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "longshore-deployment-web", "namespace": namespace},
            "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"},
        }
    )
    session = Session.from_kubeconfig(cluster.kubeconfig)
    with ClusterRuntime(session).lock(thing):
        (lease,) = cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")["items"]
        assert lease["spec"]["holderIdentity"] != "dead"
    session.close()


def test_a_kind_that_is_installed_later_is_found(runtime, cluster, namespace):
    group = f"{namespace}.example.com"
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "x", "namespace": namespace}}
    with pytest.raises(ClusterError, match="does not know Thing") as missing:
        runtime.apply([thing])
    assert missing.value.reason == "NotInstalled"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    cluster.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"things.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
            },
        }
    )
    eventually(lambda: cluster.path(thing), "the new kind")
    assert runtime.apply([thing]) == [Ref.of(thing)]
