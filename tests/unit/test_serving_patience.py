"""Whom a server waits for no longer, and what it does not keep."""

import json
import socket

import pytest

from longshore.serving.outbox import Outbox
from longshore.serving.patience import Patience, too_slow


def test_who_keeps_a_server_waiting_for_the_same_for_too_long_is_told():
    patience = Patience(10)
    assert patience.exhausted({"a": 1, "b": 1}, 0) == []
    assert patience.exhausted({"a": 1, "b": 2}, 8) == []
    # b has gone on, and c is new
    assert patience.exhausted({"a": 1, "b": 2, "c": 1}, 11) == ["a"]
    assert patience.exhausted({"b": 2}, 17) == []
    assert patience.exhausted({"b": 2}, 19) == ["b"]
    # what was not waited for in between begins anew
    assert patience.exhausted({}, 30) == []
    assert patience.exhausted({"b": 2}, 31) == []


def test_it_looks_often_enough():
    assert Patience(60).interval == 1
    assert Patience(1).interval == 0.25


def test_the_answer_to_a_slow_request_is_one_of_http():
    head, _, body = too_slow(60).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert "60 seconds" in json.loads(body)["error"]


def test_what_a_client_does_not_take_is_kept_in_order():
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        outbox = Outbox(here)
        sent = bytes(range(256)) * 20_000
        outbox.sendall(sent[:5_000_000])
        assert outbox.unsent
        assert outbox.send(sent[5_000_000:]) == len(sent) - 5_000_000
        got = bytearray()
        while not outbox.flush():
            got += there.recv(2**20)
        here.shutdown(socket.SHUT_WR)
        while part := there.recv(2**20):
            got += part
        assert got == sent


def test_what_is_to_come_is_waited_for_only_where_that_is_wanted():
    here, there = socket.socketpair()
    with here, there:
        outbox = Outbox(here)
        outbox.setblocking(True)
        outbox.settimeout(0)
        with pytest.raises(BlockingIOError):
            outbox.recv(10)
        outbox.setblocking(True)
        assert outbox.gettimeout() > 0
        there.sendall(b"here")
        assert outbox.recv(10) == b"here"
        with pytest.raises(TimeoutError):
            outbox.recv(10)
