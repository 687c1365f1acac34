"""The configuration for Nginx, in a real Nginx in front of real model servers.

Starts Nginx and ``python -m longshore.serving`` as processes.
"""

import http.server
import os
import string
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import requests
from harness.nginx import check_configuration, find_nginx, nginx
from harness.serving import PREDICT, ROWS, Asking, refused, serving, wait_for
from harness.system import Missing, free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshore.errors import InvalidValue
from longshore.spec import Router
from longshore.targets.nginx import nginx_configuration


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

    def post(self, content=None, path=PREDICT, **options):
        content = {"instances": ROWS} if content is None else content
        return requests.post(f"{self.url}{path}", json=content, timeout=30, **options)

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
            place=str(tmp_path),
        )
        with nginx(configuration, tmp_path):
            wait_for(lambda: not refused(f"http://127.0.0.1:{port}"))
            yield Front(f"http://127.0.0.1:{port}")

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
)
def test_whatever_is_taken_is_a_configuration_and_nothing_breaks_out_of_it(tmp_path, kind, name, rate, wait):
    plain = nginx_configuration({"r": 100}, {"r": ["127.0.0.1:1"]}, place=str(tmp_path))
    try:
        router = Router(
            kind="nginx", client=f"{kind}{name}", sticky=True, requests_per_second=rate, timeout_seconds=wait
        )
    except InvalidValue:
        return
    configuration = nginx_configuration(
        {"r": 100}, {"r": ["127.0.0.1:1"]}, router=router, salt="iris", place=str(tmp_path)
    )
    # three directives of the limit, and no others
    assert configuration.count(";") == plain.count(";") + 3
    check_configuration(configuration, tmp_path)
