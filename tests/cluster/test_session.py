"""What a person is told when a cluster cannot be had, or says no: on real API servers, and where there is none."""

import json
import time

import pytest
from harness.certificates import Authority
from harness.cluster import eventually, write_kubeconfig
from harness.objects import config_map, deployment

from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import deploy_model
from longshore.errors import ClusterError, ConfigError
from longshore.rbac import DEPLOYER, deployer_objects
from longshore.spec import ModelSource, Service
from longshore.targets.base import Ref


def test_no_kubeconfig(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="no cluster: .*none names none that can be used") as refused:
        Session.from_kubeconfig()
    assert "platform 'local', which needs no cluster" in str(refused.value)
    assert refused.value.reason == "NoCluster"


@pytest.mark.parametrize("content", ["", "{}", "not: [yaml", '{"contexts": []}', '{"current-context": "x"}'])
def test_a_kubeconfig_that_is_none(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ClusterError, match="no cluster"):
        Session.from_kubeconfig(path)


def test_a_context_that_is_not_there(tmp_path):
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", b"", token="x")
    with pytest.raises(ClusterError, match="no context 'prod'; it has test"):
        Session.from_kubeconfig(path, context="prod")


def test_a_context_gives_name_and_namespace(tmp_path):
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", b"", token="x", namespace="team")
    session = Session.from_kubeconfig(path)
    assert (session.name, session.namespace) == ("test", "team")
    session.close()


def test_the_kubeconfig_of_the_environment_as_it_is_now(tmp_path, monkeypatch):
    for namespace in ("one", "two"):
        path = write_kubeconfig(tmp_path / namespace, "https://127.0.0.1:1", b"", token="x", namespace=namespace)
        monkeypatch.setenv("KUBECONFIG", str(path))
        session = Session.from_kubeconfig()
        assert session.namespace == namespace
        session.close()


def test_a_cluster_that_does_not_answer_is_given_up_soon(tmp_path, cluster):
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", cluster.authority, token="x")
    session = Session.from_kubeconfig(path)
    started = time.monotonic()
    with pytest.raises(ClusterError, match="the cluster test does not answer at https://127.0.0.1:1") as refused:
        session.resource("v1", "Pod")
    assert time.monotonic() - started < 20
    assert refused.value.reason == "Unreachable"
    session.close()


def test_an_authority_that_is_not_the_clusters(tmp_path, cluster):
    path = write_kubeconfig(tmp_path / "config", cluster.url, Authority(tmp_path).pem, token="x")
    session = Session.from_kubeconfig(path)
    with pytest.raises(ClusterError, match="certificate verify failed"):
        session.resource("v1", "Pod")
    session.close()


def test_an_expired_token(tmp_path, cluster):
    path = write_kubeconfig(tmp_path / "config", cluster.url, cluster.authority, token="expired")
    session = Session.from_kubeconfig(path)
    with pytest.raises(ClusterError, match="does not accept these credentials") as refused:
        ClusterRuntime(session).get(Ref("v1", "ConfigMap", "x", "default"))
    assert refused.value.reason == "Unauthorized"
    session.close()


def test_a_token_that_was_renewed_in_the_kubeconfig(tmp_path, cluster, namespace):
    """As with a login that writes a new token while a long deployment runs."""
    path = write_kubeconfig(tmp_path / "config", cluster.url, cluster.authority, token="expired")
    session = Session.from_kubeconfig(path)
    valid = json.loads(cluster.kubeconfig_of(namespace, "worker").read_text())["users"][0]["user"]["token"]
    for manifest in deployer_objects(namespace, service_account="worker"):
        cluster.apply(manifest)
    write_kubeconfig(path, cluster.url, cluster.authority, token=valid)
    assert ClusterRuntime(session).get(Ref("apps/v1", "Deployment", "x", namespace)) is None
    session.close()


def test_what_is_forbidden_names_the_role_that_allows_it_and_then_is_allowed(cluster, namespace):
    session = Session.from_kubeconfig(cluster.kubeconfig_of(namespace, "worker"))
    runtime = ClusterRuntime(session)
    who = f"system:serviceaccount:{namespace}:worker"
    with pytest.raises(ClusterError, match=f"{who} may not get deployments.apps in namespace {namespace}") as refused:
        runtime.apply([deployment(namespace)])
    assert "manifests/rbac/deployer.yaml" in str(refused.value)
    for manifest in deployer_objects(namespace, service_account="worker"):
        cluster.apply(manifest)
    eventually(lambda: _applied(runtime, deployment(namespace)), "the role takes effect", 10)
    elsewhere = cluster.namespace()
    with pytest.raises(ClusterError, match=f"in namespace {elsewhere}"):
        runtime.apply([deployment(elsewhere)])
    session.close()


def test_whether_a_secret_is_there_is_told_to_whom_it_may_be_told(cluster, namespace):
    session = Session.from_kubeconfig(cluster.kubeconfig_of(namespace, "worker"))
    runtime = ClusterRuntime(session)
    there, absent, other = (Ref("v1", "Secret", name, namespace) for name in ("there", "absent", "other"))
    for ref in (there, other):
        metadata = {"name": ref.name, "namespace": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": "value"}})
    assert runtime.exists(there) is None
    for manifest in deployer_objects(namespace, service_account="worker", secrets=["there", "absent"]):
        cluster.apply(manifest)
    eventually(lambda: runtime.exists(there), "the role takes effect", 10)
    assert runtime.exists(absent) is False
    assert runtime.exists(other) is None
    session.close()


def _applied(runtime, manifest) -> bool:
    try:
        return bool(runtime.apply([manifest]))
    except ClusterError as error:
        if error.reason == "Forbidden":
            return False
        raise


def test_a_namespace_that_is_ending(runtime, cluster, namespace):
    held = config_map(namespace)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    cluster.apply(held)
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")
    with pytest.raises(ClusterError, match="its namespace is being deleted") as refused:
        runtime.apply([config_map(namespace, "two")])
    assert refused.value.reason == "Forbidden"
    held["metadata"]["finalizers"] = []
    cluster.apply(held)


def test_a_policy_that_refuses_is_quoted(runtime, cluster, namespace):
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    constraints = {"namespaceSelector": selector, "resourceRules": [rule]}
    group = "admissionregistration.k8s.io/v1"
    cluster.apply(
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": namespace},
            "spec": {
                "matchConstraints": constraints,
                "validations": [{"expression": "false", "message": "not on a Friday"}],
            },
        }
    )
    cluster.apply(
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": namespace},
            "spec": {"policyName": namespace, "validationActions": ["Deny"]},
        }
    )
    number = 0

    def refused() -> str:
        nonlocal number
        number += 1
        try:
            runtime.apply([config_map(namespace, f"n{number}")])
        except ClusterError as error:
            return str(error)
        return ""

    # the server takes a moment to know its new policy
    assert "not on a Friday" in eventually(refused, "the policy", 30)


def test_a_webhook_that_refuses_is_quoted(runtime, kserve, namespace):
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "Iris_1", "namespace": namespace},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}}},
    }
    with pytest.raises(ClusterError) as refused:
        runtime.apply([service])
    assert "could not be applied" in str(refused.value)
    service["metadata"]["name"] = "iris"
    service["spec"]["predictor"]["minReplicas"] = -1
    with pytest.raises(ClusterError, match="the admission webhook inferenceservice.kserve-webhook-server.* refused it"):
        runtime.apply([service])


def test_a_product_that_is_missing(runtime, namespace):
    scaled = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "iris", "namespace": namespace},
    }
    with pytest.raises(ClusterError, match="does not know ScaledObject .*: install KEDA on it"):
        runtime.apply([scaled])


def test_what_a_platform_cannot_do_is_told_before_a_cluster_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    model = ModelSource(uri="/models/iris", format="sklearn", name="iris")
    with pytest.raises(ConfigError, match="pods cannot read a path of this machine"):
        deploy_model(model, Service(name="iris"), platform="rest")
    with pytest.raises(ConfigError, match="use one of local, rest"):
        deploy_model(model, Service(name="iris"), platform="kubernetes")


def test_the_role_is_the_least(cluster, namespace):
    """Every rule is used by a deployment, and nothing that a deployment does not do is allowed."""
    for manifest in deployer_objects(namespace):
        cluster.apply(manifest)
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

    def may(verb: str, group: str, resource: str, where: str = namespace) -> bool:
        attributes = {"namespace": where, "verb": verb, "group": group, "resource": resource}
        user = f"system:serviceaccount:{namespace}:{DEPLOYER}"
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        return cluster.request("POST", path, review)["status"]["allowed"]

    eventually(lambda: may("patch", "apps", "deployments"), "the role")
    assert may("delete", "", "services")
    assert not may("get", "", "secrets")
    assert not may("create", "", "pods")
    assert not may("create", "", "pods/exec")
    assert not may("patch", "apps", "deployments", "default")
    assert not may("create", "rbac.authorization.k8s.io", "rolebindings")
