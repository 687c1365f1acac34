"""What listens for a face, in this process: on a loopback port."""

import asyncio
import contextlib
import re
import socket

import pytest

from longshore.serving.listeners import UvicornListener, run_loop

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("told", ["stop", "end"])
def test_who_is_connected_is_answered_though_nothing_is_accepted_any_more(told):
    answers = []

    async def main():
        listening = socket.create_server(("127.0.0.1", 0))
        listener = UvicornListener(answer, listening, drain_seconds=30, client_seconds=30)
        await listener.start()
        # all within one turn of the loop: the kernel has accepted them, and the loop has not
        clients = [socket.create_connection(listening.getsockname(), timeout=30) for _ in range(20)]
        if told == "stop":
            listener.stop_accepting()
        ending = asyncio.create_task(listener.end()) if told == "end" else None
        for client in clients:
            client.sendall(GET)
        if told == "stop":
            assert listener.connections == len(clients)
        for client in clients:
            answers.append(await asyncio.to_thread(client.recv, 4096))
            client.close()
        await (ending or listener.end())

    run_loop("uvicorn", main())
    assert [each[:15] for each in answers] == [b"HTTP/1.1 200 OK"] * 20


async def echo(scope, receive, send):
    message = await receive()
    head = [(b"content-length", str(len(message["body"])).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": message["body"]})


def test_requests_in_advance_are_answered_up_to_a_number_and_in_order():
    sent = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d" % number for number in range(1000)]

    def ask(address) -> bytes:
        told = b""
        with socket.create_connection(address, timeout=30) as client, contextlib.suppress(ConnectionError):
            client.sendall(b"".join(sent))
            while part := client.recv(65536):
                told += part
        return told

    async def main():
        listening = socket.create_server(("127.0.0.1", 0))
        listener = UvicornListener(echo, listening, drain_seconds=30, client_seconds=30)
        await listener.start()
        told.append(await asyncio.to_thread(ask, listening.getsockname()))
        await listener.end()

    told = list[bytes]()
    run_loop("uvicorn", main())
    bodies = re.findall(rb"\r\n\r\n(\d{4})", told[0])
    assert bodies == [b"%04d" % number for number in range(len(bodies))]
    assert 256 <= len(bodies) < 300
