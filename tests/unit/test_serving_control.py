"""The control socket: requests, answers, and file descriptors beside them."""

import socket
import threading

import pytest

from longshore.errors import DeployError
from longshore.serving.control import ask, serve_control


@pytest.fixture
def serve(tmp_path):
    opened = []

    def start(handle):
        path = tmp_path / "c.sock"
        opened.append(serve_control(path, handle))
        return path

    yield start
    for listener in opened:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_request_is_answered(serve):
    path = serve(lambda request, fds: ({"heard": request["do"], "fds": len(fds)}, ()))
    assert ask(path, {"do": "retire"}) == ({"heard": "retire", "fds": 0}, [])


def test_a_descriptor_travels_there_and_back(serve):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        path = serve(lambda _, fds: ({}, fds))
        _, (received,) = ask(path, {"do": "accept"}, fds=[listener.fileno()])
        with socket.socket(fileno=received) as copy:
            assert copy.getsockname() == listener.getsockname()
            assert received != listener.fileno()


def test_only_this_user_can_connect(serve):
    assert serve(lambda *_: ({}, ())).stat().st_mode & 0o077 == 0


def test_a_refusal_is_told_and_the_next_request_is_answered(serve):
    def handle(request, _):
        if request["do"] == "handover":
            raise LookupError("there is none")
        return {}, ()

    path = serve(handle)
    with pytest.raises(DeployError, match="refused to handover: LookupError: there is none"):
        ask(path, {"do": "handover"})
    assert ask(path, {"do": "retire"})[0] == {}


@pytest.mark.parametrize("sent", [b"", b"not json\n", b'{"do": "retire"}'])
def test_a_broken_request_does_not_end_the_service(serve, sent):
    path = serve(lambda *_: ({}, ()))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert ask(path, {"do": "retire"})[0] == {}


def test_nobody_there(tmp_path):
    with pytest.raises(DeployError, match="did not answer to 'retire'"):
        ask(tmp_path / "none.sock", {"do": "retire"})


def test_one_who_is_silent_is_given_up(serve):
    go_on = threading.Event()
    path = serve(lambda *_: (go_on.wait(10), ({}, ()))[1])
    try:
        with pytest.raises(DeployError, match="timed out"):
            ask(path, {"do": "retire"}, timeout_seconds=0.1)
    finally:
        go_on.set()


def test_a_large_answer_arrives_whole(serve):
    path = serve(lambda *_: ({"reason": "x" * 50_000}, ()))
    assert len(ask(path, {"do": "retire"})[0]["reason"]) == 50_000


@pytest.mark.parametrize("name", ["c.sock", "c.sock~"])
def test_a_stale_socket_is_replaced(serve, tmp_path, name):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / name))
    assert (tmp_path / name).is_socket()
    assert ask(serve(lambda *_: ({}, ())), {"do": "retire"})[0] == {}
