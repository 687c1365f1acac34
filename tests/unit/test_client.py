"""What a client makes of answers; a small HTTP server plays endpoints that are right and wrong."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from longshore.client import check_answers, predict, probe, replay
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.spec import Endpoint

ROWS = [{"x": 1}, {"x": 2}]
TOO_MANY = 429, {"error": "too many requests"}


@pytest.fixture
def serve():
    servers = []

    def start(answer, revisions=()) -> Endpoint:
        told = list(revisions)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if not told:
                    return self._reply(404, {})
                revision = told.pop(0) if len(told) > 1 else told[0]
                if isinstance(revision, int):
                    return self._reply(revision, {})
                if revision is None:
                    self.close_connection = True
                    return None
                return self._reply(200, {"ready": True, "revision": revision})

            def do_POST(self):
                rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
                self._reply(*answer(rows))

            def _reply(self, status, body):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Endpoint(name="m", url=f"http://127.0.0.1:{server.server_port}", model="m", revision="m-1")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def doubled(rows):
    return 200, {"predictions": [2.0 * row["x"] for row in rows]}


@pytest.mark.parametrize("revisions", [[None, None, "m-1"], ["m-0", "m-0", "m-1"], [429, 503, "m-1"], ["m-1"], []])
def test_a_probe_waits_until_the_address_leads_to_the_revision(serve, revisions):
    asked = []
    endpoint = serve(lambda rows: asked.append(rows) or doubled(rows), revisions)
    probe(endpoint, ROWS, None)
    assert len(asked) == 1 + len(ROWS)


def test_a_probe_is_not_content_with_another_revision(serve):
    with pytest.raises(DeployError, match="still answered by revision m-0 after 0.3 s"):
        probe(serve(doubled, ["m-0"]), ROWS, None, timeout_seconds=0.3)


def test_a_probe_of_what_does_not_answer_says_so():
    nowhere = Endpoint(name="m", url="http://127.0.0.1:1", model="m", revision="m-1")
    with pytest.raises(DeployError, match="did not answer"):
        probe(nowhere, ROWS, None, timeout_seconds=0.3)


def test_a_probe_comes_again_when_it_is_told_to(serve):
    busy = itertools.cycle([True, False])
    probe(serve(lambda rows: TOO_MANY if next(busy) else doubled(rows)), ROWS, None)
    with pytest.raises(DeployError, match="answered 429: too many"):
        probe(serve(lambda _: TOO_MANY), ROWS, None, timeout_seconds=0.2)


def test_predictions_come_back_in_order(serve):
    assert predict(serve(doubled), ROWS) == [2.0, 4.0]


def test_a_refusal_carries_the_servers_words(serve):
    with pytest.raises(InputError, match="answered 400: row 0, column 'x'"):
        predict(serve(lambda _: (400, {"error": "row 0, column 'x': expected a number"})), ROWS)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, {"error": "boom"}), "answered 500: boom"),
        ((502, b"<html>bad gateway"), "answered 502: <html>bad gateway"),
        ((200, b"not json"), "without a list of predictions"),
        ((200, {"outputs": []}), "without a list of predictions"),
        ((200, {"predictions": 3}), "without a list of predictions"),
    ],
)
def test_a_bad_answer_is_told(serve, answer, words):
    with pytest.raises(DeployError, match=words):
        predict(serve(lambda _: answer), ROWS)


def test_nobody_there_is_told():
    endpoint = Endpoint(name="m", url="http://127.0.0.1:1", model="m", revision="m-1")
    with pytest.raises(DeployError, match="did not answer"):
        predict(endpoint, ROWS)


def test_a_good_endpoint_passes_the_smoke_test(serve):
    probe(serve(doubled), ROWS, None)


def test_answers_that_depend_on_the_neighbours_fail_the_smoke_test(serve):
    endpoint = serve(lambda rows: (200, {"predictions": [float(len(rows))] * len(rows)}))
    with pytest.raises(DeployError, match=r"row 0 gives 1\.0 alone and 2\.0 among others"):
        probe(endpoint, ROWS, None)


@pytest.mark.parametrize(
    ("predictions", "classes", "words"),
    [
        ([1.0], None, "2 rows were sent and 1 predictions"),
        ([1.0, None], None, "row 1"),
        ([1.0, float("nan")], None, "finite"),
        ([1.0, True], None, "finite"),
        (["a", "c"], ["a", "b"], "'c', which is no class"),
    ],
)
def test_answers_that_cannot_be_right(predictions, classes, words):
    with pytest.raises(DeployError, match=words):
        check_answers(predictions, 2, classes)


def test_answers_that_can_be_right():
    check_answers([1, 2.5], 2, None)
    check_answers(["a", "b"], 2, ["a", "b"])


def test_replay_counts_requests_and_failures(serve):
    def sometimes(rows):
        return (503, {"error": "busy"}) if rows[0]["x"] == 2 else doubled(rows)

    report = replay(serve(sometimes), [{"x": n} for n in (1, 2, 3)], None)
    assert (report.requests, report.failed, report.rows) == (3, 1, 3)
    assert "busy" in report.first_error
    assert 0 < report.p50_seconds <= report.p99_seconds


def test_replay_sends_batches(serve):
    sizes = []

    def note(rows):
        sizes.append(len(rows))
        return doubled(rows)

    assert replay(serve(note), [{"x": n} for n in range(5)], None, batch_size=2).requests == 3
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("arguments", [{"rows": []}, {"rows": ROWS, "batch_size": 0}])
def test_replay_refuses_nothing_to_send(arguments):
    endpoint = Endpoint(name="m", url="http://127.0.0.1:1", model="m", revision="m-1")
    with pytest.raises(InvalidValue):
        replay(endpoint, classes=None, **arguments)
