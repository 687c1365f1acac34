"""The example that a graph has to answer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from longshore.errors import DeployError, InvalidValue
from longshore.kserve import answers
from longshore.spec import Endpoint


@pytest.fixture
def router():
    """A server that answers every path, with the status that the request asks for."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(body["status"])
            self.end_headers()
            self.wfile.write(b"step failed")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def endpoint(url):
    return Endpoint(name="flow", url=url, model="flow", revision="flow-1")


def test_an_answer_is_enough(router):
    answers({"status": 200})(endpoint(router))


def test_an_error_is_told_with_the_routers_words(router):
    with pytest.raises(DeployError, match="answered the example with 500: step failed"):
        answers({"status": 500})(endpoint(router))


def test_no_answer_is_told(router):
    with pytest.raises(DeployError, match="did not answer"):
        answers({}, timeout_seconds=0.3)(endpoint("http://127.0.0.1:9"))


def test_an_example_is_json():
    with pytest.raises(InvalidValue, match="use what JSON can hold"):
        answers({"a": object()})
