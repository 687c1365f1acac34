"""The memory that bodies may take together."""

import threading

import pytest

from longshore.serving.room import Place, Room

SMALL = 64 * 1024
SIZE = 10 * SMALL


@pytest.fixture
def room():
    return Room(SIZE)


def test_bodies_share_the_room(room):
    one, other = Place(room), Place(room)
    assert one.grow(4 * SMALL)
    assert other.grow(6 * SMALL)
    # each is counted once, however many parts it comes in
    assert one.grow(4 * SMALL)
    assert not one.grow(4 * SMALL + 1)


def test_who_finds_no_room_holds_none(room):
    one, other, third = Place(room), Place(room), Place(room)
    assert one.grow(5 * SMALL)
    assert other.grow(5 * SMALL)
    assert not one.grow(6 * SMALL)
    assert one.held == 0
    assert third.grow(5 * SMALL)
    assert not one.grow(2 * SMALL)


def test_what_is_left_is_there_for_others(room):
    one, other = Place(room), Place(room)
    assert one.grow(SIZE)
    assert not other.grow(2 * SMALL)
    one.leave()
    one.leave()
    assert other.grow(SIZE)
    assert not one.grow(2 * SMALL)


def test_a_body_that_is_alone_finds_room_however_large_it_is(room):
    one, other = Place(room), Place(room)
    assert one.grow(SIZE)
    assert one.grow(3 * SIZE)
    assert not other.grow(2 * SMALL)
    one.leave()
    assert other.grow(2 * SMALL)
    assert not one.grow(3 * SIZE)


def test_small_bodies_find_room_in_any_case_and_take_none(room):
    large, small = Place(room), Place(room)
    assert large.grow(3 * SIZE)
    assert small.grow(SMALL)
    assert small.held == 0
    assert large.grow(4 * SIZE)


def test_threads_share_it_too(room):
    def come_and_go():
        place = Place(room)
        for size in range(SMALL, 3 * SMALL, 100):
            place.grow(size)
        place.leave()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = Place(room), Place(room)
    # as at first: nobody else is there
    assert one.grow(SIZE)
    assert not other.grow(2 * SMALL)
