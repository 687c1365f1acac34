"""The engine on this machine, with real server processes, sockets and signals."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness.local import Clients, alive, pids
from harness.penguins import PENGUINS, ROW
from harness.serving import wait_for

from longshore.cli.app import run
from longshore.client import predict
from longshore.deployment import deploy_model, example_rows, find_endpoint, rollback_service, undo_run
from longshore.errors import ConfigError, DeployError
from longshore.local import LocalRuntime, list_servers, log_paths, stop
from longshore.local.state import load
from longshore.serving.control import ask
from longshore.spec import Endpoint, Service
from longshore.storage import copy_tree
from longshore.targets.base import Ref

SERVICE = Service(name="penguins")
REF = Ref("local.longshore.dev/v1alpha1", "ModelServer", "penguins")


@pytest.fixture
def models(home, constant_models):
    """Models that are not in the registry: what is recorded there is tested elsewhere."""
    return lambda number: replace(constant_models(number), version=None)


def answer(endpoint: Endpoint) -> float:
    return predict(endpoint, [ROW])[0]


def test_a_first_deploy_answers(models, home):
    done = deploy_model(models(1), SERVICE)
    assert answer(done.endpoint) == 1.0
    (server,) = list_servers()
    assert (server.name, server.state, server.url) == ("penguins", "serving", done.endpoint.url)
    assert pids(home) == [server.pid]
    assert "is ready on port" in log_paths("penguins")[0].read_text()


@pytest.mark.parametrize(
    "frameworks", [["fastapi"] * 4, ["flask"] * 4, ["fastapi", "flask", "fastapi", "flask"]], ids="-".join
)
def test_replacing_under_load_loses_no_request(models, home, frameworks):
    endpoint = deploy_model(models(1), replace(SERVICE, framework=frameworks[0])).endpoint
    with Clients(endpoint.url) as clients:
        for number in (2, 3, 4):
            done = deploy_model(models(number), replace(SERVICE, framework=frameworks[number - 1]))
            assert done.endpoint.url == endpoint.url
            assert answer(done.endpoint) == number
            wait_for(lambda number=number: number in clients.answers)
    assert clients.failures == []
    assert set(clients.answers) == {1.0, 2.0, 3.0, 4.0}
    stop("penguins")
    assert pids(home) == []


def test_the_replaced_process_ends(models, home):
    deploy_model(models(1), SERVICE)
    (first,) = list_servers()
    deploy_model(models(2), SERVICE)
    (second,) = [server for server in list_servers() if server.state == "serving"]
    wait_for(lambda: not alive(first.pid))
    assert pids(home) == [second.pid]


def corrupt(source, tmp_path, change):
    broken = tmp_path / "broken"
    shutil.copytree(source.uri, broken)
    change(broken)
    return replace(source, uri=str(broken))


def truncate(directory: Path) -> None:
    path = directory / "model.joblib"
    path.write_bytes(path.read_bytes()[:100])


def test_a_model_that_changed_on_disk_is_not_served(models, home, tmp_path):
    endpoint = deploy_model(models(1), SERVICE).endpoint
    with (
        Clients(endpoint.url) as clients,
        pytest.raises(DeployError, match="does not have the recorded content") as caught,
    ):
        deploy_model(corrupt(models(2), tmp_path, truncate), SERVICE)
    assert "serves as before" in str(caught.value)
    assert clients.failures == []
    assert set(clients.answers) == {1.0}
    assert [server.state for server in list_servers() if server.pid] == ["serving"]


def test_a_first_deploy_that_fails_leaves_nothing(models, home, tmp_path):
    with pytest.raises(DeployError, match="nothing was left behind"):
        deploy_model(corrupt(models(1), tmp_path, truncate), SERVICE)
    assert list_servers() == []
    assert pids(home) == []
    assert not (home / "local" / "penguins").exists()


def test_a_server_that_dies_while_starting_is_told_with_its_log(models, home):
    broken = Service(name="penguins", env={"PYTHONSTARTUP": "", "PYTHONPATH": "", "PYTHONHOME": "/nowhere"})
    with pytest.raises(DeployError, match=r"ended before it was ready.*log"):
        deploy_model(models(1), broken)
    assert pids(home) == []


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_a_killed_server_is_seen_and_brought_back_on_its_port(models, home, framework):
    service = replace(SERVICE, framework=framework)
    first = deploy_model(models(1), service).endpoint
    (server,) = list_servers()
    os.kill(server.pid, signal.SIGKILL)
    dead = wait_for(lambda: next((s for s in list_servers() if s.state == "stopped"), None))
    assert (dead.state, dead.pid, dead.url) == ("stopped", None, None)
    again = deploy_model(models(1), service).endpoint
    assert again.url == first.url
    assert answer(again) == 1.0


def test_a_killed_server_can_be_replaced(models):
    first = deploy_model(models(1), SERVICE).endpoint
    os.kill(list_servers()[0].pid, signal.SIGKILL)
    wait_for(lambda: list_servers()[0].pid is None)
    second = deploy_model(models(2), SERVICE).endpoint
    assert second.url == first.url
    assert answer(second) == 2.0


def test_deploying_the_same_again_restarts_nothing(models):
    deploy_model(models(1), SERVICE)
    (before,) = list_servers()
    deploy_model(models(1), SERVICE)
    (after,) = list_servers()
    assert after.pid == before.pid


def test_going_back_and_forth(models):
    deploy_model(models(1), SERVICE)
    second = deploy_model(models(2), SERVICE)
    back = rollback_service("penguins")
    assert back.endpoint.url == second.endpoint.url
    assert answer(back.endpoint) == 1.0
    assert answer(rollback_service("penguins").endpoint) == 2.0


def test_there_is_no_way_back_from_the_first(models):
    with pytest.raises(ConfigError, match="no earlier release"):
        rollback_service("penguins")
    deploy_model(models(1), SERVICE)
    with pytest.raises(ConfigError, match="no earlier release"):
        rollback_service("penguins")


def test_a_port_that_is_taken_is_named_and_nothing_is_left(models, home):
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        with pytest.raises(DeployError, match=f"cannot listen on port {port}"):
            deploy_model(models(1), Service(name="penguins", port=port))
    assert pids(home) == []
    done = deploy_model(models(1), Service(name="penguins", port=port))
    assert done.endpoint.url == f"http://127.0.0.1:{port}"


def test_a_service_can_move_to_another_port(models):
    first = deploy_model(models(1), SERVICE).endpoint
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    moved = deploy_model(models(2), Service(name="penguins", port=port)).endpoint
    assert moved.url == f"http://127.0.0.1:{port}" != first.url
    assert answer(moved) == 2.0


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_stop_leaves_no_process_and_no_file(models, home, framework):
    endpoint = deploy_model(models(1), replace(SERVICE, framework=framework)).endpoint
    stop("penguins")
    assert pids(home) == []
    assert list_servers() == []
    assert not (home / "local" / "penguins").exists()
    with pytest.raises(DeployError, match="did not answer"):
        answer(endpoint)
    with pytest.raises(ConfigError, match="penguins"):
        stop("penguins")


def test_term_lets_requests_finish(models, home):
    endpoint = deploy_model(models(1), SERVICE).endpoint
    (server,) = list_servers()
    # one that keeps its connection: a new one may wait in the queue of a socket that nobody takes over
    with Clients(endpoint.url, count=1) as clients:
        while len(clients.answers) < 20:
            assert not clients.failures
        os.kill(server.pid, signal.SIGTERM)
        wait_for(lambda: not alive(server.pid))
    # once nobody listens, new connections are refused; none that was open is cut
    assert all("Connection refused" in failure for failure in clients.failures)


def test_two_services_do_not_meet(models):
    one = deploy_model(models(1), SERVICE).endpoint
    two = deploy_model(replace(models(2), name="others"), Service(name="others")).endpoint
    assert (answer(one), answer(two)) == (1.0, 2.0)
    stop("penguins")
    assert answer(two) == 2.0


def test_one_deploy_of_a_service_at_a_time(models):
    runtime, order = LocalRuntime(), []

    def second() -> None:
        with LocalRuntime().lock(REF):
            order.append("second")

    with runtime.lock(REF):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


DIES_MID_DEPLOY = """
import os, signal, sys
from longshore import client, deployment
from longshore.spec import ModelSource, Service
client.probe = lambda *_a, **_k: os.kill(os.getpid(), signal.SIGKILL)
model = ModelSource(uri=sys.argv[1], format="sklearn", name="penguins", digest=sys.argv[2])
deployment.deploy_model(model, Service(name="penguins"))
"""


def test_a_deploy_that_is_killed_leaves_the_old_one_serving_and_the_next_one_cleans_up(models, home):
    endpoint = deploy_model(models(1), SERVICE).endpoint
    died = subprocess.run([sys.executable, "-c", DIES_MID_DEPLOY, models(2).uri, models(2).digest], check=False)
    assert died.returncode == -signal.SIGKILL
    assert answer(endpoint) == 1.0
    assert len(pids(home)) == 2
    done = deploy_model(models(3), SERVICE)
    assert answer(done.endpoint) == 3.0
    assert done.previous.model.uri == models(1).uri
    stop("penguins")
    assert pids(home) == []


def test_a_service_is_found_and_asked_by_its_name(models, capfd, tmp_path, monkeypatch):
    deployed = deploy_model(models(7), SERVICE).endpoint
    assert find_endpoint("penguins") == deployed
    with pytest.raises(ConfigError, match="bears no release of longshore's"):
        find_endpoint("others")
    ask = ["predict", "penguins", "--platform", "local"]
    examples = len(example_rows("penguins"))
    capfd.readouterr()
    for more, number in (
        ([], examples),
        (["--rows", str(PENGUINS)], 344),
        (["--rows", "-", "--protocol", "v2"], 2),
        (["--ingress", deployed.url, "--host", "penguins.example.com"], examples),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"instances": [ROW, ROW]})))
        assert run([*ask, *more]) == 0
        assert json.loads(capfd.readouterr().out) == [7.0] * number
    wrong = tmp_path / "rows.json"
    for content, said in (("3", "holds no rows"), ("{", "are not JSON"), ('[{"year": 1}]', "answered 400")):
        wrong.write_text(content)
        assert run([*ask, "--rows", str(wrong)]) == 1
        assert said in capfd.readouterr().err


def test_what_a_run_deployed_can_be_undone(models, monkeypatch, home):
    deploy_model(models(1), SERVICE)
    monkeypatch.setenv("LONGSHORE_RUN", "run-2")
    done = deploy_model(models(2), SERVICE)
    deploy_model(replace(models(3), name="others"), Service(name="others"))
    monkeypatch.delenv("LONGSHORE_RUN")
    undo_run("run-1")
    assert answer(done.endpoint) == 2.0
    undo_run("run-2")
    assert answer(done.endpoint) == 1.0
    assert {server.name for server in list_servers()} == {"penguins"}


def test_a_run_that_deployed_twice_is_undone_to_what_served_before_it(models, monkeypatch):
    deploy_model(models(1), SERVICE)
    monkeypatch.setenv("LONGSHORE_RUN", "run-2")
    deploy_model(models(2), SERVICE)
    done = deploy_model(models(3), SERVICE)
    monkeypatch.delenv("LONGSHORE_RUN")
    undo_run("run-2")
    assert answer(done.endpoint) == 1.0


def test_a_model_elsewhere_is_refused(models):
    with pytest.raises(DeployError, match="package the model into a local repository"):
        deploy_model(replace(models(1), uri=copy_tree(Path(models(1).uri), "memory://bucket/model")), SERVICE)


def test_in_a_pod_the_platform_is_refused(models, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigError, match="in a pod"):
        deploy_model(models(1), SERVICE)


def test_old_revisions_are_forgotten(models, home):
    for number in range(1, 9):
        deploy_model(models(number), SERVICE)
    logs = list((home / "local" / "penguins").glob("*.log"))
    assert len(logs) <= 8
    assert answer(deploy_model(models(8), SERVICE).endpoint) == 8.0


def manifest_of(source, revision, *, traffic=100, port=None, framework="fastapi"):
    return {
        "apiVersion": REF.api_version,
        "kind": REF.kind,
        "metadata": {"name": "penguins"},
        "spec": {
            "revision": revision,
            "traffic": traffic,
            "port": port,
            "framework": framework,
            "model": {"uri": source.uri, "name": "penguins", "version": None, "digest": source.digest},
            "env": {},
            "drainSeconds": 10,
            "replicas": 1,
            "router": None,
        },
    }


def bring_up(runtime, manifest, seconds: float = 120):
    """The status after all has been said."""
    refs = runtime.apply([manifest])
    *_, last = runtime.observe(refs, deadline=time.monotonic() + seconds)
    return last[0]["status"]


def revision_in(status, name):
    return next(revision for revision in status["revisions"] if revision["name"] == name)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda m: m["spec"].update(framework="rails"), "framework = 'rails' is not valid: use one of fastapi, flask"),
        (lambda m: m["spec"]["model"].update(digest="sha256:" + "0" * 64), "does not have the recorded content"),
        (
            lambda m: (m["spec"].update(framework="flask"), m["spec"]["model"].update(digest="sha256:" + "0" * 64)),
            "does not have the recorded content",
        ),
        (lambda m: m["spec"]["model"].update(uri="/nowhere"), "/nowhere: no such directory"),
        (
            lambda m: m["spec"].update(env={"PYTHONHOME": "/nowhere"}),
            r"ended before it was ready \(exit code 1\); its log",
        ),
    ],
)
def test_a_candidate_that_fails_is_told_in_the_status_and_touches_nothing(models, home, break_it, reason):
    runtime = LocalRuntime()
    before = bring_up(runtime, manifest_of(models(1), "one"))
    candidate = manifest_of(models(2), "two", traffic=0)
    break_it(candidate)
    after = bring_up(runtime, candidate)
    failed = revision_in(after, "two")
    assert (failed["state"], failed["traffic"]) == ("failed", 0)
    assert re.search(reason, failed["reason"])
    assert str(log_paths("penguins", "two")[0]) in failed["reason"]
    assert (after["active"], after["url"]) == ("one", before["url"])
    assert revision_in(after, "one") == revision_in(before, "one")
    assert predict(Endpoint(name="penguins", url=after["url"], model="penguins", revision="one"), [ROW]) == [1.0]


def test_a_server_that_is_killed_while_starting_is_told_by_its_signal(models, home):
    runtime = LocalRuntime()
    runtime.apply([manifest_of(models(1), "one")])
    # not before it has its own command line
    (pid,) = wait_for(lambda: pids(home))
    os.kill(pid, signal.SIGKILL)
    *_, last = runtime.observe([REF], deadline=time.monotonic() + 60)
    assert "ended before it was ready (killed by SIGKILL)" in revision_in(last[0]["status"], "one")["reason"]


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_one_that_was_told_to_retire_accepts_no_more_once_it_has_answered(models, home, framework):
    runtime = LocalRuntime()
    url = revision_in(bring_up(runtime, manifest_of(models(1), "one", framework=framework)), "one")["url"]
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address) as kept:
        ask(load("penguins").control("one"), {"do": "retire"})
        with socket.socket() as client:
            assert client.connect_ex(address) != 0
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        answered = kept.recv(4096).lower()
    assert answered.startswith(b"http/1.1 200")
    assert b"connection: close" in answered


def test_applying_twice_before_the_server_is_up_starts_one(models, home):
    runtime = LocalRuntime()
    runtime.apply([manifest_of(models(1), "one")])
    started = pids(home)
    runtime.apply([manifest_of(models(1), "one")])
    assert len(started) == 1
    assert pids(home) == started
    assert bring_up(runtime, manifest_of(models(1), "one"))["active"] == "one"


def test_a_candidate_that_nobody_waits_for_is_ended(models, home):
    runtime = LocalRuntime()
    runtime.apply([manifest_of(models(1), "one")])
    seen = runtime.observe([REF], deadline=time.monotonic() + 60)
    assert revision_in(next(seen)[0]["status"], "one")["state"] == "starting"
    seen.close()
    assert pids(home) == []
    assert "nobody waited" in revision_in(runtime.get(REF)["status"], "one")["reason"]


def test_deleting_a_server_that_has_only_just_been_started_leaves_nothing(models, home):
    runtime = LocalRuntime()
    with runtime.lock(REF):
        runtime.apply([manifest_of(models(1), "one")])
        runtime.delete([REF])
    assert pids(home) == []
    assert list((home / "local").iterdir()) == []


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_what_serves_can_move_to_another_port(models, home, framework):
    service = replace(SERVICE, framework=framework)
    first = deploy_model(models(1), service).endpoint
    (before,) = list_servers()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    moved = deploy_model(models(1), replace(service, port=port)).endpoint
    assert moved.url == f"http://127.0.0.1:{port}"
    assert answer(moved) == 1.0
    assert list_servers()[0].pid == before.pid

    def refused() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(first.url.rpartition(":")[2]))) != 0

    wait_for(refused)
    assert answer(deploy_model(models(2), replace(service, port=port)).endpoint) == 2.0


def test_an_ended_server_stays_no_zombie(models, home):
    deploy_model(models(1), SERVICE)
    (server,) = list_servers()
    stop("penguins")
    wait_for(lambda: not Path(f"/proc/{server.pid}").exists())
    assert list((home / "local").iterdir()) == []


DEPLOYS = """
import sys
from longshore.deployment import deploy_model
from longshore.spec import ModelSource, Service
deploy_model(ModelSource(uri=sys.argv[1], format="sklearn", name="penguins"), Service(name="penguins"))
"""


def test_two_processes_that_deploy_at_once_take_turns(models, home):
    endpoint = deploy_model(models(1), SERVICE).endpoint
    with Clients(endpoint.url, count=2) as clients:
        deploys = [subprocess.Popen([sys.executable, "-c", DEPLOYS, models(number).uri]) for number in (2, 3)]
        assert [process.wait(120) for process in deploys] == [0, 0]
    assert clients.failures == []
    assert set(clients.answers) <= {1.0, 2.0, 3.0}
    assert clients.answers[-1] in (2.0, 3.0)
    serving = [server for server in list_servers() if server.state == "serving"]
    assert len(serving) == 1
    wait_for(lambda: pids(home) == [serving[0].pid])
