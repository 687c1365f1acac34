"""The least role, as objects and as a command."""

import pytest
import yaml

from longshore.cli.app import run
from longshore.errors import InvalidValue
from longshore.rbac import DEPLOYER, deployer_objects


def test_an_account_a_role_and_their_binding():
    account, role, binding = deployer_objects("prod")
    assert account["kind"] == "ServiceAccount"
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == DEPLOYER
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": DEPLOYER, "namespace": "prod"}]
    assert {manifest["metadata"]["namespace"] for manifest in (account, role, binding)} == {"prod"}


def test_the_role_allows_what_the_platform_takes_and_no_wildcard():
    _, role, _ = deployer_objects("prod", platforms=["rest"])
    allowed = {(rule["apiGroups"][0], rule["resources"][0]): set(rule["verbs"]) for rule in role["rules"]}
    assert allowed["apps", "deployments"] == {"get", "list", "watch", "create", "patch", "delete"}
    for guard in (
        ("autoscaling", "horizontalpodautoscalers"),
        ("networking.k8s.io", "networkpolicies"),
        ("policy", "poddisruptionbudgets"),
    ):
        assert allowed[guard] == allowed["apps", "deployments"]
    assert allowed["", "pods"] == {"get", "list", "watch"}
    assert ("", "secrets") not in allowed
    assert not any("*" in names for key in allowed for names in (*key, *allowed[key]))


def test_secrets_are_opened_by_name_only():
    _, role, _ = deployer_objects("prod", platforms=["rest"], secrets=["bucket", "hub"])
    (rule,) = (rule for rule in role["rules"] if "secrets" in rule["resources"])
    assert rule == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["bucket", "hub"], "verbs": ["get"]}


@pytest.mark.parametrize(("given", "namespace"), [("default-editor", "prod"), ("kubeflow/pipeline-runner", "kubeflow")])
def test_an_account_that_is_there_is_bound_and_not_made(given, namespace):
    role, binding = deployer_objects("prod", service_account=given)
    assert role["kind"] == "Role"
    assert binding["subjects"][0] == {
        "kind": "ServiceAccount",
        "name": given.rpartition("/")[2],
        "namespace": namespace,
    }


@pytest.mark.parametrize(("namespace", "account"), [("Prod", None), ("prod", "a b"), ("prod\nx", None)])
def test_names_are_checked(namespace, account):
    with pytest.raises(InvalidValue):
        deployer_objects(namespace, service_account=account)


def test_the_command_writes_what_kubectl_takes(capsys):
    words = ["--service-account", "default-editor", "--platform", "rest", "--secret", "hub"]
    assert run(["rbac", "-n", "team", *words]) == 0
    text = capsys.readouterr().out
    assert list(yaml.safe_load_all(text)) == deployer_objects(
        "team", service_account="default-editor", platforms=["rest"], secrets=["hub"]
    )
    assert "&id" not in text


def test_the_command_writes_kserves_runtime(capsys):
    assert run(["runtime", "--namespace", "team", "--image", "registry.example/server:2"]) == 0
    (runtime,) = yaml.safe_load_all(capsys.readouterr().out)
    assert (runtime["kind"], runtime["metadata"]["namespace"]) == ("ServingRuntime", "team")
    assert runtime["spec"]["containers"][0]["image"] == "registry.example/server:2"
