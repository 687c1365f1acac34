"""What listens: how answers go out."""

import asyncio

import pytest

from longshore.serving.listeners import Corked


class Connection:
    """A transport that notes what it is told."""

    def __init__(self):
        self.told, self.closing = [], False

    def writelines(self, parts):
        self.told.append(list(parts))

    def close(self):
        self.told.append("close")
        self.closing = True

    def is_closing(self):
        return self.closing

    def get_extra_info(self, name):
        return name


@pytest.fixture
def connection():
    return Connection()


def run(connection, work):
    async def main():
        corked = Corked(connection, asyncio.get_running_loop())
        await work(corked)
        await asyncio.sleep(0)

    asyncio.run(main())
    return connection.told


def test_what_is_written_at_once_is_sent_at_once(connection):
    async def work(corked):
        for parts in ((b"head", b"body"), (b"another",)):
            for part in parts:
                corked.write(part)
            assert connection.told[-1:] != [list(parts)]
            await asyncio.sleep(0)
        assert corked.get_extra_info("socket") == "socket"

    assert run(connection, work) == [[b"head", b"body"], [b"another"]]


def test_what_is_written_is_sent_before_the_end(connection):
    async def work(corked):
        corked.write(b"last")
        corked.close()

    assert run(connection, work) == [[b"last"], "close"]


def test_nothing_is_sent_to_a_client_that_is_gone(connection):
    async def work(corked):
        corked.write(b"late")
        connection.closing = True

    assert run(connection, work) == []
