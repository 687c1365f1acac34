"""The configuration for Nginx, in a real Nginx in front of real model servers.

Starts Nginx and ``python -m longshore.serving`` as processes.
"""

import http.server
import json
import os
import socket
import ssl
import string
import threading
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import requests
from harness.certificates import Authority
from harness.nginx import check_configuration, find_nginx, nginx
from harness.serving import PREDICT, ROWS, Asking, refused, serving, wait_for
from harness.system import Missing, free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshore.errors import InvalidValue
from longshore.spec import Router, Tls
from longshore.targets.nginx import NGINX_READY, nginx_configuration


@pytest.fixture(scope="module", autouse=True)
def binary():
    try:
        return find_nginx()
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def revisions(iris_model, tmp_path_factory):
    """Two servers."""
    place = tmp_path_factory.mktemp("servers")
    with (
        serving(iris_model, place / "old.log") as old,
        serving(iris_model, place / "new.log") as new,
    ):
        yield {"old": old, "new": new}


@dataclass
class Front:
    url: str
    log: Path

    def enter(self):
        """It is in the machine's own network."""

    def post(self, content=None, path=PREDICT, **options):
        content = {"instances": ROWS} if content is None else content
        return requests.post(f"{self.url}{path}", json=content, timeout=30, **options)

    def lines(self, count) -> list[dict]:
        """What it has logged of requests."""
        wait_for(lambda: self.log.read_text().count('{"time"') >= count)
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def drawn(self, count, **options) -> Counter:
        """How often each revision has answered."""
        with requests.Session() as session:
            session.trust_env = False
            answers = [
                session.post(f"{self.url}{PREDICT}", json={"instances": ROWS}, timeout=30, **options)
                for _ in range(count)
            ]
        assert {answer.status_code for answer in answers} == {200}
        return Counter(answer.headers["x-longshore-revision"] for answer in answers)


@pytest.fixture
def front(tmp_path):
    """A function that starts an Nginx in front of hosts."""

    @contextmanager
    def start(shares, hosts, mirror=None, **options):
        port = free_port()
        configuration = nginx_configuration(
            shares,
            hosts,
            mirror,
            router=Router(kind="nginx", **options),
            salt="iris",
            listen=f"127.0.0.1:{port}",
            port=port,
            place=str(tmp_path),
            certificates=str(tmp_path),
            user="root" if os.geteuid() == 0 else None,
        )
        with nginx(configuration, tmp_path):
            wait_for(lambda: not refused(f"http://127.0.0.1:{port}"))
            yield Front(f"http://127.0.0.1:{port}", tmp_path / "nginx.log")

    return start


def hosts_of(revisions):
    return {name: [server.url.removeprefix("http://")] for name, server in revisions.items()}


def test_requests_are_shared_out_by_weight(front, revisions):
    with front({"new": 10, "old": 90}, hosts_of(revisions)) as nginx_:
        drawn = nginx_.drawn(1000)
    # six deviations to either side
    assert 43 < drawn["new"] < 157


@pytest.mark.parametrize("kind", ["header", "cookie"])
def test_a_client_keeps_to_its_revision_and_the_share_is_right_over_many(front, revisions, kind):
    def of(client):
        return {"headers": {"X-User": client}} if kind == "header" else {"cookies": {"user": client}}

    named = "header:X-User" if kind == "header" else "cookie:user"
    with front({"new": 30, "old": 70}, hosts_of(revisions), sticky=True, client=named) as nginx_:
        first = {f"user-{number}": nginx_.drawn(1, **of(f"user-{number}")) for number in range(300)}
        again = {client: nginx_.drawn(2, **of(client)) for client in list(first)[:30]}
        # without a name they all go by their address
        assert len(nginx_.drawn(20)) == 1
    assert 42 < sum(drawn["new"] for drawn in first.values()) < 138
    assert all(again[client] == drawn + drawn for client, drawn in first.items() if client in again)


def test_copies_are_made_and_their_answers_dropped(front, revisions):
    name, labels = "longshore_prediction_duration_seconds_count", {"protocol": "v1"}
    before = revisions["new"].counted(name, **labels)
    with front({"old": 100}, hosts_of(revisions), ("new", 100)) as nginx_:
        assert nginx_.drawn(50) == {"old": 50}
        wait_for(lambda: revisions["new"].counted(name, **labels) == before + 50)


def test_who_asks_too_often_is_told_to_come_again(front, revisions):
    options = {"requests_per_second": 5, "client": "header:X-User"}
    with front({"old": 100}, hosts_of(revisions), **options) as nginx_:
        answers = [nginx_.post(headers={"X-User": "a"}) for _ in range(30)]
        refusals = [answer for answer in answers if answer.status_code == 429]
        assert len(refusals) > 5
        assert refusals[0].json()["error"].startswith("too many requests")
        assert refusals[0].headers["retry-after"] == "1"
        # another one is not kept waiting by it
        assert nginx_.post(headers={"X-User": "b"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "//metrics", "/x/../metrics", "/%6detrics", "/admin/", "/admin"]
)
def test_what_is_no_clients_business_is_not_there(front, revisions, path):
    with front({"old": 100}, hosts_of(revisions)) as nginx_:
        request = requests.Request("GET", nginx_.url).prepare()
        # as it is, not as requests would tidy it up
        request.url = f"{nginx_.url}{path}"
        answer = requests.Session().send(request, timeout=30)
        assert (answer.status_code, answer.json()) == (404, {"error": "there is no such path"})
        assert nginx_.post().status_code == 200


def test_a_request_has_an_id_all_the_way(front, revisions):
    with front({"old": 100}, hosts_of(revisions)) as nginx_:
        assert nginx_.post(headers={"X-Request-ID": "abc"}).headers["x-request-id"] == "abc"
        own = nginx_.post(headers={"X-Request-ID": "a b"}).headers["x-request-id"]
        assert len(own) == 32
        assert int(own, 16)


def test_what_goes_wrong_is_told_as_json(front, revisions):
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            done.wait(30)

        def log_message(self, *_):
            pass

    done = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as slow:
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        hosts = {
            "slow": [f"127.0.0.1:{slow.server_port}"],
            "gone": [f"127.0.0.1:{free_port()}"],
            **hosts_of(revisions),
        }
        try:
            with front({"slow": 100}, hosts, timeout_seconds=1) as nginx_:
                late = nginx_.post()
                assert (late.status_code, late.json()) == (504, {"error": "there was no answer within 1 seconds"})
        finally:
            done.set()
            slow.shutdown()
    with front({"gone": 100}, hosts) as nginx_:
        assert nginx_.post().json() == {"error": "the revision does not answer: come again"}
    with front({"old": 100}, hosts) as nginx_:
        # the head is enough: Nginx refuses it before the body is there
        large = requests.Request("POST", f"{nginx_.url}{PREDICT}", data=b"{}").prepare()
        large.headers["Content-Length"] = str(33 * 2**20)
        answer = requests.Session().send(large, timeout=30)
        assert (answer.status_code, answer.json()["error"]) == (413, "the body is larger than 32m: send fewer rows")
        # what the server itself refuses comes as it is
        assert "row 0 has 3 values" in nginx_.post({"instances": [[1, 2, 3]]}).json()["error"]


def test_each_request_is_a_line_of_json_with_the_revision_that_answered(front, revisions):
    hosts = {"gone": [f"127.0.0.1:{free_port()}"], **hosts_of(revisions)}
    with front({"old": 100}, hosts, access_log=True) as nginx_:
        nginx_.post(headers={"X-Request-ID": "one"}, path=f"{PREDICT}?secret=1")
        nginx_.post(path='/a"b%0a')
        requests.get(f"{nginx_.url}/metrics", timeout=30)
        requests.get(f"{nginx_.url}{NGINX_READY}", timeout=30)
        with socket.create_connection(("127.0.0.1", int(nginx_.url.rpartition(":")[2]))) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            assert b"400" in raw.recv(1000)
        served, unknown, hidden, broken = nginx_.lines(4)
    assert (served["request_id"], served["revision"], served["status"]) == ("one", "old", 200)
    assert (served["method"], served["path"]) == ("POST", PREDICT)
    assert 0 < served["upstream_seconds"] < 30
    assert 0 < served["seconds"] < 30
    assert served["bytes"] > 0
    assert datetime.fromisoformat(served["time"]).tzinfo is not None
    assert (unknown["path"], unknown["revision"], unknown["status"]) == ('/a"b\n', "old", 404)
    assert (hidden["path"], hidden["revision"], hidden["status"]) == ("/metrics", "", 404)
    assert hidden["upstream_seconds"] is None
    assert broken["status"] == 400
    with front({"gone": 100}, hosts, access_log=True) as nginx_:
        nginx_.post()
        (away,) = nginx_.lines(1)
        assert (away["revision"], away["status"]) == ("gone", 502)
    with front({"old": 100}, hosts) as nginx_:
        nginx_.post()
    assert "{" not in nginx_.log.read_text()


@pytest.fixture
def authority(tmp_path):
    """Vouches for the certificate that Nginx has."""
    made = Authority(tmp_path)
    made.issue("tls", "iris", hosts=["127.0.0.1", "models.example.com"])
    return made


def test_clients_come_by_https_and_who_does_not_is_sent_there(front, revisions, authority):
    with front({"old": 100}, hosts_of(revisions), tls=Tls(secret="any")) as nginx_:
        plain, secure = nginx_.url, nginx_.url.replace("http:", "https:")
        trusting = {"verify": str(authority.certificate), "timeout": 30}
        sent = requests.post(f"{plain}{PREDICT}?a=b", json={"instances": ROWS}, allow_redirects=False, timeout=30)
        assert (sent.status_code, sent.headers["location"]) == (308, f"{secure}{PREDICT}?a=b")
        for url in (plain, secure):
            answer = requests.post(f"{url}{PREDICT}", json={"instances": ROWS}, **trusting)
            assert answer.json() == {"predictions": [0, 2]}
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{secure}/v2", timeout=30)


def test_old_protocols_and_ciphers_are_refused_and_a_renewed_certificate_counts_at_once(front, revisions, authority):
    def shake(version=None, ciphers=None):
        """The certificate and the protocol of a connection."""
        context = ssl.create_default_context(cafile=authority.certificate)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers is not None:
            context.set_ciphers(ciphers)
        with (
            socket.create_connection(("127.0.0.1", int(nginx_.url.rpartition(":")[2]))) as bare,
            context.wrap_socket(bare, server_hostname="models.example.com") as secure,
        ):
            return secure.getpeercert()["serialNumber"], secure.version()

    with front({"old": 100}, hosts_of(revisions), tls=Tls(secret="any", host="models.example.com")) as nginx_:
        first, version = shake()
        assert version == "TLSv1.3"
        assert shake(ssl.TLSVersion.TLSv1_2)[1] == "TLSv1.2"
        for refused_ in ({"ciphers": "ECDHE-ECDSA-AES128-SHA"}, {"ciphers": "ALL:@SECLEVEL=0"}):
            weak = ssl.TLSVersion.TLSv1_2 if "SHA" in refused_["ciphers"] else ssl.TLSVersion.TLSv1_1
            with pytest.raises(ssl.SSLError), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                shake(weak, **refused_)
        authority.issue("tls", "iris", hosts=["models.example.com"])
        assert shake()[0] != first
        sent = requests.get(f"{nginx_.url}/v2", allow_redirects=False, timeout=30)
        assert sent.headers["location"] == f"https://models.example.com:{nginx_.url.rpartition(':')[2]}/v2"


@pytest.mark.parametrize("face", ["fastapi", "flask", "django --server=gunicorn", "django --server=daphne"])
def test_replicas_are_ended_and_replaced_under_load_without_a_failed_request(front, iris_model, tmp_path, face):
    environment = {**os.environ, "LONGSHORE_HOME": str(tmp_path)}
    ports = [free_port(), free_port()]

    def replica(port, generation):
        options = f"--framework={face} --port={port}".split()
        return serving(iris_model, tmp_path / f"{port}-{generation}.log", *options, env=environment)

    with ExitStack() as running:
        before = [running.enter_context(replica(port, 1)) for port in ports]
        with front({"new": 100}, {"new": [f"127.0.0.1:{port}" for port in ports]}) as nginx_, Asking(nginx_) as asking:
            asking.wait_for(20)
            for port, former in zip(ports, before, strict=True):
                former.process.terminate()
                assert former.process.wait(30) == 0
                asking.wait_for(20)
                running.enter_context(replica(port, 2))
                asking.wait_for(20)
    assert asking.failures == []


_NAMES = st.one_of(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,64}", fullmatch=True), st.text(string.printable + "ä\u2028", max_size=70)
)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["header:", "cookie:", ""]),
    name=_NAMES,
    rate=st.integers(-1, 10**6),
    wait=st.integers(-1, 10**6),
    host=st.none() | st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True) | st.text(string.printable, max_size=30),
    secret=st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True) | st.text(string.printable, max_size=30),
    port=st.none() | st.integers(1, 65535),
)
def test_whatever_is_taken_is_a_configuration_and_nothing_breaks_out_of_it(
    tmp_path, kind, name, rate, wait, host, secret, port
):
    def configured(router):
        return nginx_configuration(
            {"r": 100}, {"r": ["127.0.0.1:1"]}, router=router, salt="iris", port=port, place=str(tmp_path)
        )

    limits = {"sticky": True, "requests_per_second": 1, "access_log": True}
    plain = configured(Router(kind="nginx", tls=Tls(secret="any"), **limits))
    try:
        router = Router(
            kind="nginx",
            client=f"{kind}{name}",
            timeout_seconds=wait,
            tls=Tls(secret=secret, host=host),
            **{**limits, "requests_per_second": rate},
        )
    except InvalidValue:
        return
    configuration = configured(router)
    # the same directives, and no others
    assert configuration.count(";") == plain.count(";")
    assert configuration.count("{") == plain.count("{")
    check_configuration(configuration, tmp_path)
