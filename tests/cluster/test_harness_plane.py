"""The control plane, and that nothing is left of it however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness.builds import KUBERNETES_VERSION
from harness.cluster import Cluster, eventually
from harness.keeper import Keeper, leftovers, sweep
from harness.plane import Plane
from harness.traces import processes
from kubernetes.client.rest import ApiException

HERE = Path(__file__).parent

STARTER = """\
from harness.keeper import Keeper
from harness.plane import Plane

keeper = Keeper()
Plane(keeper).start()
print(keeper.folder, flush=True)
input()
"""


@pytest.fixture
def elsewhere(plane, tmp_path, monkeypatch) -> Path:
    """Keepers have their folders here, so that a test sees only its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def harness(*arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout


def refusal(ask):
    with pytest.raises(ApiException) as caught:
        ask()
    return caught.value.status


def test_server_and_controllers_answer(plane, cluster, namespace):
    assert cluster.request("GET", "/version")["gitVersion"] == f"v{KUBERNETES_VERSION}"
    kubectl = ["--namespace", namespace, "create", "deployment", "web", "--image=web:1", "--replicas=2"]
    cluster.kubectl(*kubectl, command=plane.kubectl)

    def pods():
        return cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]

    eventually(lambda: len(pods()) == 2, "two pods")


def test_roles_of_a_service_account_hold(cluster, namespace):
    reader = Cluster(cluster.kubeconfig_of(namespace, "reader"), cluster.kubeconfig.parent)
    space = f"/api/v1/namespaces/{namespace}"
    assert refusal(lambda: reader.request("GET", f"{space}/configmaps")) == 403
    metadata = {"name": "reader", "namespace": namespace}
    version = "rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    cluster.apply({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subjects = [{"kind": "ServiceAccount", **metadata}]
    cluster.apply(
        {"apiVersion": version, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": subjects}
    )
    eventually(lambda: reader.request("GET", f"{space}/configmaps")["items"], "the role")
    assert refusal(lambda: reader.request("GET", f"{space}/secrets")) == 403
    assert refusal(lambda: reader.request("GET", "/api/v1/namespaces/default/configmaps")) == 403


def test_restarted_api_server_has_the_data(plane, cluster, namespace):
    metadata = {"name": "kept", "namespace": namespace}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}}
    before = cluster.apply(manifest)
    plane.stop_api_server()
    plane.start_api_server()
    assert cluster.get(cluster.path(manifest)) == before


def test_nothing_is_left_when_the_caller_is_killed(elsewhere):
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        folder = Path(starter.stdout.readline().strip())
        assert folder.is_relative_to(elsewhere)
        # the keeper itself is one more
        assert len(processes(f"{folder}/")) >= 4
        starter.kill()
    eventually(lambda: not processes(f"{folder}/") and not folder.exists(), "the end of everything", 20)


def test_a_killed_keeper_takes_its_processes_along_and_is_swept(elsewhere):
    undone = elsewhere / "undone"
    keeper = Keeper()
    try:
        Plane(keeper).start()
        keeper.run("true", undo=["touch", undone])
        os.kill(keeper.pid, signal.SIGKILL)
        eventually(lambda: not processes(f"{keeper.folder}/"), "the end of the processes", 20)
        assert not undone.exists()
        assert eventually(sweep, "swept folder", 20) == [keeper.folder]
    finally:
        keeper.close()
    assert undone.exists()
    assert leftovers() == []


def test_keepers_do_not_share_a_slot(elsewhere):
    first, second = Keeper(), Keeper()
    try:
        assert (first.slot, second.slot) == (0, 1)
        assert first.folder != second.folder
        # what runs is not swept
        assert sweep() == []
        assert leftovers() == [first.folder, second.folder]
        first.close()
        assert leftovers() == [second.folder]
        first = Keeper()
        assert first.slot == 0
    finally:
        first.close()
        second.close()
    assert leftovers() == []


def test_up_and_down(elsewhere):
    other = Keeper()
    try:
        shown = harness("up", "--nodes", "0")
        kubeconfig = re.search(r"^export KUBECONFIG=(.+)$", shown, re.MULTILINE)[1]
        cluster = Cluster(Path(kubeconfig), elsewhere)
        assert len(cluster.request("GET", "/api/v1/nodes")["items"]) == 2
        folder = Path(kubeconfig).parent
        assert processes(f"{folder}/")
        harness("down")
        assert not processes(f"{folder}/")
        # the cluster of a run of tests stays
        assert leftovers() == [other.folder]
    finally:
        harness("down")
        other.close()
