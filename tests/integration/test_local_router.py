"""A service of this machine behind a real Nginx: parts, copies, and what goes wrong.

Starts Nginx and server processes as the runtime does.
"""

import os
import signal
import socket
import subprocess
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from harness.certificates import Authority
from harness.local import Clients, alive, pids
from harness.nginx import find_nginx
from harness.penguins import ROW
from harness.serving import refused, wait_for
from harness.system import Missing, free_port
from prometheus_client.parser import text_string_to_metric_families

from longshore.cli.app import run
from longshore.client import Access
from longshore.deployment import deploy_model, find_endpoint, predict, promote_service, rollback_service
from longshore.errors import ConfigError, DeployError
from longshore.local import LocalRuntime, list_servers, log_paths, stop
from longshore.local.front import Front
from longshore.locks import acquire
from longshore.spec import Router, Scaling, Service, Tls, Traffic
from longshore.targets.base import Ref

SERVICE = Service(name="penguins", router=Router(kind="nginx"))
CANARY = Traffic(percent=10)
REF = Ref("local.longshore.dev/v1alpha1", "ModelServer", "penguins")


@pytest.fixture(scope="module", autouse=True)
def binary():
    """Nginx on the path of commands."""
    try:
        place = Path(find_nginx()).parent
    except Missing as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(place), prepend=os.pathsep)
        yield


@pytest.fixture
def models(home, constant_models):
    return lambda number: replace(constant_models(number), version=None)


def drawn(url: str, count: int = 200, **headers: str) -> Counter:
    """How often each answer came."""
    found: Counter = Counter()
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(count):
            answer = session.post(f"{url}/v1/models/penguins:predict", json={"instances": [ROW]}, headers=headers)
            answer.raise_for_status()
            found[answer.json()["predictions"][0]] += 1
    return found


def asked(url: str) -> float:
    """How many predictions a revision has been asked for."""
    text = requests.get(f"{url}/metrics", timeout=10).text
    families = text_string_to_metric_families(text)
    return sum(s.value for f in families for s in f.samples if s.name == "longshore_prediction_duration_seconds_count")


def nginxes(home: Path) -> list[int]:
    """The processes of Nginx that work in this home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_nginx = (entry / "comm").read_text().strip() == "nginx"
            if is_nginx and (entry / "cwd").readlink().is_relative_to(home) and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def master(home: Path) -> list[int]:
    """The one of them that started the others."""
    (pid,) = home.rglob("nginx.pid")
    return [int(pid.read_text())]


def test_a_process_that_has_ended_is_no_front_whether_or_not_its_parent_knows(tmp_path):
    front = Front("penguins", tmp_path)
    with (
        (tmp_path / "lock").open("w") as lock,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process,
    ):
        assert acquire(lock.fileno(), 5)
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        assert front.alive
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not front.alive
        process.wait()
        assert not front.alive


def test_a_service_moves_from_one_model_to_the_next_without_a_lost_request(models, home):
    first = deploy_model(models(1), SERVICE).endpoint
    with Clients(first.url, keep=False) as clients:
        canary = deploy_model(models(2), SERVICE, traffic=CANARY).endpoint
        assert canary.url == first.url != canary.revision_url
        assert {server.percent for server in list_servers()} == {10, 90}
        shares = drawn(first.url)
        # 200 draws of a tenth: outside of these bounds once in a million times
        assert 3 <= shares[2.0] <= 46
        assert shares[1.0] + shares[2.0] == 200
        promote_service("penguins", percent=50)
        assert 20 <= drawn(first.url, 100)[2.0] <= 80
        done = promote_service("penguins")
        assert done.endpoint.url == first.url
        assert drawn(first.url, 50) == {2.0: 50}
        back = rollback_service("penguins")
        assert back.endpoint.url == first.url
        assert drawn(first.url, 50) == {1.0: 50}
    assert clients.failures == []
    assert set(clients.answers) == {1.0, 2.0}
    wait_for(lambda: len(pids(home)) == 1)
    stop("penguins")
    assert pids(home) == nginxes(home) == []
    assert refused(first.url)
    assert not (home / "local" / "penguins").exists()


def test_a_canary_is_taken_back_at_once_and_starts_nothing(models, home):
    first = deploy_model(models(1), SERVICE).endpoint
    (before,) = pids(home)
    deploy_model(models(2), SERVICE, traffic=CANARY)
    with Clients(first.url, keep=False) as clients:
        rollback_service("penguins")
        assert drawn(first.url, 50) == {1.0: 50}
    assert clients.failures == []
    assert wait_for(lambda: pids(home) == [before])


def test_a_second_canary_takes_the_place_of_the_first(models, home):
    url = deploy_model(models(1), SERVICE).endpoint.url
    deploy_model(models(2), SERVICE, traffic=CANARY)
    deploy_model(models(3), SERVICE, traffic=Traffic(percent=50))
    assert set(drawn(url, 50)) == {1.0, 3.0}
    assert wait_for(lambda: len(pids(home)) == 2)
    # what served before is the first canary with its part, not with all
    rollback_service("penguins")
    shares = drawn(url, 100)
    assert set(shares) == {1.0, 2.0}
    assert shares[1.0] > 70


def test_a_copy_is_asked_and_its_answers_are_dropped(models):
    url = deploy_model(models(1), SERVICE).endpoint.url
    shadow = deploy_model(models(2), SERVICE, traffic=Traffic(percent=0, mirror_percent=100)).endpoint
    assert shadow.url == url
    before = asked(shadow.revision_url)
    assert drawn(url, 30) == {1.0: 30}
    wait_for(lambda: asked(shadow.revision_url) == before + 30)
    promote_service("penguins")
    assert drawn(url, 30) == {2.0: 30}


def test_a_client_keeps_to_its_revision(models):
    sticky = replace(SERVICE, router=Router(kind="nginx", client="header:X-User", sticky=True))
    url = deploy_model(models(1), sticky).endpoint.url
    deploy_model(models(2), sticky, traffic=Traffic(percent=50))
    met = [drawn(url, 5, **{"X-User": f"user-{number}"}) for number in range(20)]
    assert all(len(answers) == 1 for answers in met)
    assert len({next(iter(answers)) for answers in met}) == 2


def test_a_limit_of_requests_is_kept(models):
    limited = replace(SERVICE, router=Router(kind="nginx", requests_per_second=1))
    url = deploy_model(models(1), limited).endpoint.url

    def status() -> int:
        return requests.get(f"{url}/v1/models/penguins", timeout=10).status_code

    # the smoke test has kept to it as well
    assert 429 in {status() for _ in range(10)}
    wait_for(lambda: status() == 200)


def test_a_model_that_does_not_come_up_changes_nothing(models, home):
    url = deploy_model(models(1), SERVICE).endpoint.url
    deploy_model(models(2), SERVICE, traffic=CANARY)
    before = sorted(pids(home))
    broken = replace(models(3), digest="sha256:" + "0" * 64)
    with Clients(url, keep=False) as clients, pytest.raises(DeployError, match="serves as before"):
        deploy_model(broken, SERVICE, traffic=Traffic(percent=50))
    assert clients.failures == []
    assert set(drawn(url, 100)) == {1.0, 2.0}
    wait_for(lambda: sorted(pids(home)) == before)
    assert {server.percent for server in list_servers()} == {10, 90}


def test_what_was_killed_is_started_again_by_the_next_deploy(models, home):
    url = deploy_model(models(1), SERVICE).endpoint.url
    (stable,) = pids(home)
    os.kill(stable, signal.SIGKILL)
    wait_for(lambda: [(server.state, server.percent) for server in list_servers()] == [("stopped", 0)])
    assert requests.get(f"{url}/v1/models/penguins", timeout=10).status_code == 502
    deploy_model(models(2), SERVICE, traffic=CANARY)
    assert set(drawn(url, 100)) == {1.0, 2.0}
    # Nginx: its master, whose workers go on for themselves, and then all of it
    for which in (master, nginxes):
        killed = which(home)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda killed=killed: not any(map(alive, killed)))
        assert find_endpoint("penguins").url != url
        assert promote_service("penguins", percent=50).endpoint.url == url
        assert set(drawn(url, 50)) == {1.0, 2.0}
        assert not set(nginxes(home)) & set(killed)


def test_a_revision_has_replicas_and_their_number_can_change(models, home):
    def scaled(replicas):
        return deploy_model(models(1), replace(SERVICE, scaling=Scaling(min_replicas=replicas))).endpoint

    def servers():
        (revision,) = LocalRuntime().get(REF)["status"]["revisions"]
        return revision["servers"]

    url = scaled(2).url
    first, second = servers()
    assert len(pids(home)) == len(list_servers()) == 2
    assert drawn(url, 20) == {1.0: 20}
    # each of Nginx's workers takes them in turn
    assert min(asked(server["url"]) for server in (first, second)) > 5
    os.kill(first["pid"], signal.SIGKILL)
    wait_for(lambda: sorted(server.state for server in list_servers()) == ["serving", "stopped"])
    assert drawn(url, 20) == {1.0: 20}
    with Clients(url, keep=False) as clients:
        scaled(3)
        assert len(pids(home)) == 3
        assert servers()[1] == second
        scaled(1)
        wait_for(lambda: [server.state for server in list_servers()] == ["serving"])
    assert clients.failures == []
    assert len(pids(home)) == 1


def test_the_port_of_the_service_can_change_to_one_that_is_free(models):
    ports = free_port(), free_port()
    deploy_model(models(1), replace(SERVICE, port=ports[0]))
    done = deploy_model(models(2), replace(SERVICE, port=ports[1]))
    assert done.endpoint.url == f"http://127.0.0.1:{ports[1]}"
    assert drawn(done.endpoint.url, 5) == {2.0: 5}
    # Nginx's workers of before go once they have answered
    assert wait_for(lambda: refused(f"http://127.0.0.1:{ports[0]}"))
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        with pytest.raises(DeployError, match=rf"port {taken} of 127\.0\.0\.1.*serves as before"):
            deploy_model(models(1), replace(SERVICE, port=taken))
    assert drawn(done.endpoint.url, 5) == {2.0: 5}


def test_a_service_comes_by_https_and_its_clients_know_whom_to_trust(models, home, tmp_path):
    authority = Authority(tmp_path)
    files = authority.issue("mine", "penguins", hosts=["models.example.com"])
    other = authority.issue("other", "penguins", hosts=["models.example.com"])
    tls = Tls(cert_file=str(files[0]), key_file=str(files[1]), host="models.example.com", ca=authority.pem.decode())

    def secured(number, tls):
        return deploy_model(models(number), replace(SERVICE, router=Router(kind="nginx", access_log=True, tls=tls)))

    plain = deploy_model(models(1), SERVICE).endpoint
    with pytest.raises(DeployError, match="key values mismatch.*serves as before"):
        secured(2, replace(tls, key_file=str(other[1])))
    with pytest.raises(DeployError, match=r"certificate is not trusted.*Tls\.host.*serves as before"):
        secured(2, replace(tls, host=None))
    assert plain.predict([ROW]) == [1.0]
    secured(2, tls)
    endpoint = find_endpoint("penguins")
    assert endpoint.url == plain.url.replace("http:", "https:")
    assert [server.url for server in list_servers() if server.state == "serving"] == [endpoint.url]
    assert endpoint.predict([ROW]) == endpoint.predict([ROW], protocol="v2") == [2.0]
    assert predict(endpoint, [ROW], access=Access(ca_file=authority.certificate)) == [2.0]
    with pytest.raises(DeployError, match="certificate is not trusted"):
        replace(endpoint, ca=None).predict([ROW])
    sent = requests.get(f"{plain.url}/v2", allow_redirects=False, timeout=10)
    assert (sent.status_code, sent.headers["location"][:27]) == (308, "https://models.example.com:")
    assert f'"revision":"{endpoint.revision}"' in log_paths("penguins")[-1].read_text()
    deploy_model(models(1), SERVICE)
    assert plain.predict([ROW]) == [1.0]
    # the key is where it was, and nowhere else
    kept = [path for path in (home / "local").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in kept if b"PRIVATE KEY" in path.read_bytes()]


def test_a_service_has_a_router_from_its_first_deploy_on(models):
    deploy_model(models(1), SERVICE)
    with pytest.raises(ConfigError, match="served with a router"):
        deploy_model(models(2), replace(SERVICE, router=None))
    stop("penguins")
    deploy_model(models(1), replace(SERVICE, router=None))
    with pytest.raises(ConfigError, match="served without a router"):
        deploy_model(models(2), SERVICE)


def test_without_nginx_nothing_is_started(models, home, monkeypatch):
    monkeypatch.setattr("longshore.local.front.shutil.which", lambda *_, **__: None)
    with pytest.raises(DeployError, match="install nginx"):
        deploy_model(models(1), SERVICE)
    assert pids(home) == []
    assert list_servers() == []


def test_the_command_line_moves_requests(models, capsys):
    url = deploy_model(models(1), SERVICE).endpoint.url
    deploy_model(models(2), SERVICE, traffic=CANARY)
    assert run(["local", "promote", "penguins", "--percent", "50"]) == 0
    assert f"to 50 % of the requests at {url}" in capsys.readouterr().out
    assert run(["local", "ls"]) == 0
    assert capsys.readouterr().out.count("50%") == 2
    assert run(["local", "rollback", "penguins"]) == 0
    assert drawn(url, 20) == {1.0: 20}


def test_a_home_with_odd_characters_is_no_danger(models, tmp_path, monkeypatch):
    home = tmp_path / 'a home; of "mine" {$x}'
    monkeypatch.setenv("LONGSHORE_HOME", str(home))
    try:
        assert drawn(deploy_model(models(1), SERVICE).endpoint.url, 3) == {1.0: 3}
    finally:
        stop("penguins")
