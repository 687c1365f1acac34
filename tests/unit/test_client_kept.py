"""Connections that are kept from one call to the next; a small HTTP server counts them."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from longshore.client import Access, close_kept, kept, predict
from longshore.errors import DeployError, InputError
from longshore.spec import Endpoint

ROWS = [{"x": 1}]


class Server(ThreadingHTTPServer):
    """Predicts 1; hangs up on a kept connection after so many answers."""

    daemon_threads = True

    def __init__(self, status=200, answers=1000):
        self.connections, self.asked, self.status, self.answers = 0, 0, status, answers
        self.together = threading.Barrier(1)
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return Endpoint(name="m", url=f"http://127.0.0.1:{self.server_port}", model="m", revision="r")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1
        self.answered = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        if self.answered == self.server.answers:
            # it breaks in the midst of a request
            self.close_connection = True
            return
        self.answered += 1
        self.server.together.wait(10)
        body = json.dumps({"predictions": [1], "error": "no"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_connection_is_kept(serve):
    server = serve()
    assert [predict(server.endpoint, ROWS) for _ in range(3)] == [[1]] * 3
    assert server.endpoint.predict(ROWS) == [1]
    assert server.connections == 1
    close_kept()
    predict(server.endpoint, ROWS)
    assert server.connections == 2


def test_others_have_others(serve):
    server = serve()
    for options in ({}, {"access": Access(token="a")}, {"access": Access(token="b")}, {"timeout_seconds": 3}, {}):
        predict(server.endpoint, ROWS, **options)
    assert server.connections == 4


def test_a_refused_request_does_not_cost_the_connection_and_a_failed_one_does(serve):
    for status, error, connections in ((400, InputError, 1), (500, DeployError, 2)):
        server = serve(status=status)
        for _ in range(2):
            with pytest.raises(error):
                predict(server.endpoint, ROWS)
        assert server.connections == connections


def test_a_connection_that_has_broken_is_made_anew(serve):
    server = serve(answers=1)
    assert [predict(server.endpoint, ROWS) for _ in range(3)] == [[1]] * 3
    assert server.connections == 3


def test_a_new_connection_that_breaks_is_told(serve):
    server = serve(answers=0)
    with pytest.raises(DeployError, match="did not answer"):
        predict(server.endpoint, ROWS)
    assert server.asked == 1


def test_threads_have_one_each_and_leave_them_to_others(serve):
    server = serve()
    server.together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda _: predict(server.endpoint, ROWS), range(4))) == [[1]] * 4
    assert server.connections == 4
    server.together = threading.Barrier(1)
    assert predict(server.endpoint, ROWS) == [1]
    assert server.connections == 4


def test_the_oldest_are_ended(serve):
    first, *others = [serve() for _ in range(10)]
    for server in (first, *others):
        predict(server.endpoint, ROWS)
    assert len(kept._kept) == 8
    predict(first.endpoint, ROWS)
    predict(others[-1].endpoint, ROWS)
    assert (first.connections, others[-1].connections) == (2, 1)


def test_a_forked_process_makes_its_own(serve):
    server = serve()
    predict(server.endpoint, ROWS)
    if (child := os.fork()) == 0:
        # nothing of pytest's is to end here
        os._exit(len(kept._kept))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    predict(server.endpoint, ROWS)
    assert server.connections == 1
