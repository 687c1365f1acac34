"""The worker with Gunicorn's threads, in this process, where the order matters in which things come to it."""

import contextlib
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
from harness.serving import wait_for

from longshore.serving.patience import abort
from longshore.serving.room import Room
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
        application=mock.Mock(reload=None, body_limit=1000, room=Room(), draining=False),
        options=SimpleNamespace(client_seconds=10.0),
        control=lambda age: tmp_path / f"{age}.sock",
        say_ready=mock.Mock(),
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
    connection = asked(worker.sockets[0].getsockname())
    yield connection
    connection.close()


@contextlib.contextmanager
def until_it_ends(worker):
    failures = []

    def run():
        try:
            worker.run()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert failures == []


@contextlib.contextmanager
def running(worker):
    with until_it_ends(worker):
        try:
            yield
        finally:
            worker.method_queue.defer(worker.retire)


def asked(address, path="/"):
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", path)
    return connection


def answers_until_it_ends(worker, client) -> str:
    with until_it_ends(worker):
        with client.getresponse() as response:
            said = response.read().decode()
        client.close()
    return said


def test_who_comes_while_a_replaced_worker_closes_its_port_is_answered(worker, client):
    # it learns in one go that it is replaced, and that somebody waits at a port which it then has no more
    worker.method_queue.defer(worker.retire)
    assert answers_until_it_ends(worker, client) == "ok"


def test_who_has_connected_to_an_idle_worker_that_is_to_end_is_answered(worker, client):
    worker.handle_exit(signal.SIGTERM, None)
    assert answers_until_it_ends(worker, client) == "ok"


def test_many_connections_are_answered_again_and_again(worker):
    address = worker.sockets[0].getsockname()
    with running(worker):
        clients = [asked(address) for _ in range(40)]
        for _ in range(3):
            for client in clients:
                with client.getresponse() as response:
                    assert response.read() == b"ok"
            for client in clients:
                client.request("GET", "/")
        for client in clients:
            with client.getresponse() as response:
                assert response.read() == b"ok"
            client.close()


def test_a_request_that_waits_keeps_no_other_waiting(worker):
    go = threading.Event()

    def waits(environ, start_response):
        if environ["PATH_INFO"] == "/waits":
            assert go.wait(10)
        return application(environ, start_response)

    worker.wsgi = waits
    address = worker.sockets[0].getsockname()
    with running(worker):
        slow, others = asked(address, "/waits"), [asked(address) for _ in range(4)]
        for other in others:
            with other.getresponse() as response:
                assert response.read() == b"ok"
            other.close()
        go.set()
        with slow.getresponse() as response:
            assert response.read() == b"ok"
        slow.close()


def test_requests_that_come_together_are_answered_in_order(worker):
    def path(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])
        return [environ["PATH_INFO"][1:].encode()]

    worker.wsgi = path
    with running(worker), socket.create_connection(worker.sockets[0].getsockname(), timeout=10) as client:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n" % number for number in range(5)))
        client.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert [part[-1:] for part in said.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [b"0", b"1", b"2", b"3", b"4"]


def test_an_answer_without_a_length_comes_in_parts(worker):
    def parts(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        yield b""
        yield b"two"

    worker.wsgi = parts
    with running(worker):
        client = asked(worker.sockets[0].getsockname())
        with client.getresponse() as response:
            assert response.getheader("Transfer-Encoding") == "chunked"
            assert response.read() == b"onetwo"
        client.close()


def test_an_answer_that_breaks_off_is_seen_to_be_short(worker):
    def breaks(environ, start_response):
        start_response("200 OK", [("Content-Length", "10")])
        yield b"one"
        raise RuntimeError

    worker.wsgi = breaks
    with running(worker):
        client = asked(worker.sockets[0].getsockname())
        with client.getresponse() as response, pytest.raises(http.client.IncompleteRead):
            response.read()
        client.close()


def test_an_application_that_fails_is_told_of(worker):
    def fails(environ, start_response):
        raise RuntimeError

    worker.wsgi = fails
    with running(worker):
        client = asked(worker.sockets[0].getsockname())
        with client.getresponse() as response:
            assert response.status == 500
        client.close()


def test_who_goes_just_as_it_is_cut_off_does_no_harm(worker):
    with socket.create_connection(worker.sockets[0].getsockname(), timeout=10) as client:
        worker.accept(worker.sockets[0])
        client.sendall(b"POST / HTTP/1.1\r\n")
        wait_for(lambda: worker.poller.select(0))
        worker.wait_for_and_dispatch_events(0)
        abort(client)
    (conn,) = worker._waiting
    assert conn.incoming.content
    worker._waiting[conn] = (worker._waiting[conn][0], 0.0)
    # it would answer that the request was too slow
    worker.murder_pending()
    assert worker.nr_conns == 0
    worker._close_listeners()
    worker.poller.close()
    worker.method_queue.close()
