"""When a request of HTTP/1 is there in full, in whatever pieces it comes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.serving.incoming import HEAD_LIMIT, Incoming

LIMIT = 50
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def length(number) -> bytes:
    return HEAD + f"Content-length: {number}\r\n\r\n".encode()


WHOLE = {
    "no body": b"GET / HTTP/1.1\r\n\r\n",
    "a length": length(5) + b"12345",
    "no length": length(0),
    "the limit": length(LIMIT) + b"1" * LIMIT,
    "chunks": CHUNKED + b"3\r\nabc\r\nA ;x=y\r\n0123456789\r\n0\r\n\r\n",
    "a line's end in a chunk": CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\na\r\n0\r\nX: y\r\n\r\n",
    "no chunk": CHUNKED + b"0\r\n\r\n",
}
ENOUGH = {
    "a length over the limit": length(LIMIT + 1),
    "chunks over the limit": CHUNKED + b"2\r\nab\r\n40\r\n" + b"1" * (LIMIT - 1),
    "no size": CHUNKED + b"x\r\n",
    "an endless size": CHUNKED + b"1" * (HEAD_LIMIT + 1),
    "endless trailers": CHUNKED + b"0\r\n" + b"a" * HEAD_LIMIT,
}


@pytest.mark.parametrize("kind", WHOLE)
@given(data=st.data())
def test_a_request_is_whole_with_its_last_byte_and_not_before(kind, data):
    content = WHOLE[kind]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=5)))
    incoming = Incoming(LIMIT)
    for begin, end in itertools.pairwise([0, *cuts, len(content)]):
        assert incoming.add(content[begin:end]) == incoming.whole == (end == len(content))
    assert incoming.content == content


@pytest.mark.parametrize("kind", WHOLE)
def test_what_follows_a_request_is_kept(kind):
    incoming = Incoming(LIMIT)
    assert incoming.add(WHOLE[kind] + b"GET")
    assert incoming.whole
    assert incoming.content == WHOLE[kind] + b"GET"


@pytest.mark.parametrize("kind", ENOUGH)
def test_nothing_is_waited_for_that_is_refused_anyway(kind):
    incoming = Incoming(LIMIT)
    assert incoming.add(ENOUGH[kind])
    assert not incoming.whole


def test_an_endless_head_is_told():
    incoming = Incoming(LIMIT)
    assert not incoming.add(HEAD)
    assert incoming.add(b"X: " + b"a" * HEAD_LIMIT)
    assert incoming.too_long
    assert not incoming.whole


def test_who_waits_for_a_word_before_the_body_is_told_once_and_the_parser_does_not_know():
    waits = length(5)[:-2] + b"expect: 100-Continue\r\n\r\n"
    incoming = Incoming(LIMIT)
    assert not incoming.add(waits)
    assert incoming.continues
    assert incoming.content == length(5)
    assert incoming.add(b"12345")
    assert incoming.content == length(5) + b"12345"
    # the body is there already, or is not wanted
    for number, body in ((5, b"1"), (LIMIT + 1, b"")):
        incoming = Incoming(LIMIT)
        incoming.add(length(number)[:-2] + b"Expect: 100-continue\r\n\r\n" + body)
        assert not incoming.continues
        assert incoming.content == length(number) + body


def test_of_what_finds_no_room_the_head_is_kept():
    incoming = Incoming(LIMIT)
    assert not incoming.add(length(5) + b"1234")
    incoming.give_up()
    assert incoming.given_up
    assert not incoming.whole
    assert incoming.content == length(5)
