"""The worker with Gunicorn's threads, in this process, where the order matters in which things come to it."""

import http.client
import os
import selectors
import signal
import socket
import threading
from types import SimpleNamespace
from unittest import mock

import pytest
from gunicorn.config import Config

from longshore.serving.wsgi_worker import WsgiWorker


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture
def worker(tmp_path):
    """A worker that does not run yet, on a port of its own."""
    config = Config()
    config.set("threads", 2)
    app = SimpleNamespace(
        application=mock.Mock(reload=None, body_limit=1000, draining=False),
        options=SimpleNamespace(client_seconds=10.0),
        control=lambda age: tmp_path / f"{age}.sock",
    )
    worker = WsgiWorker(1, os.getppid(), [socket.create_server(("127.0.0.1", 0))], app, 30, config, mock.Mock())
    worker.wsgi = application
    worker.tpool, worker.poller = worker.get_thread_pool(), selectors.DefaultSelector()
    worker.method_queue.init()
    yield worker
    worker.tmp.close()


@pytest.fixture
def client(worker):
    """Somebody who has asked before the worker looks."""
    connection = http.client.HTTPConnection(*worker.sockets[0].getsockname(), timeout=10)
    connection.request("GET", "/")
    yield connection
    connection.close()


def answers_until_it_ends(worker, client) -> str:
    failures = []

    def run():
        try:
            worker.run()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with client.getresponse() as response:
            said = response.read().decode()
        client.close()
    finally:
        thread.join()
    assert failures == []
    return said


def test_who_comes_while_a_replaced_worker_closes_its_port_is_answered(worker, client):
    # it learns in one go that it is replaced, and that somebody waits at a port which it then has no more
    worker.method_queue.defer(worker._retire)
    assert answers_until_it_ends(worker, client) == "ok"


def test_who_has_connected_to_an_idle_worker_that_is_to_end_is_answered(worker, client):
    worker.handle_exit(signal.SIGTERM, None)
    assert answers_until_it_ends(worker, client) == "ok"
