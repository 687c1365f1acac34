import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from longshore.serving.together import Together


class Model:
    """Doubles numbers; its first call waits for ``go``, and others for ``then``."""

    def __init__(self):
        self.calls, self.began = [], threading.Semaphore(0)
        self.go, self.then = threading.Event(), threading.Event()

    def __call__(self, asks):
        self.calls.append([ask[0] for ask in asks])
        self.began.release()
        assert (self.go if len(self.calls) == 1 else self.then).wait(30)
        if [0] in asks:
            raise ZeroDivisionError
        return [2 * ask[0] for ask in asks]


@pytest.fixture
def model():
    model = Model()
    yield model
    model.go.set()
    model.then.set()


@pytest.fixture
def pool(model):
    with ThreadPoolExecutor(8) as pool:
        yield pool
        model.go.set()
        model.then.set()


def wait_until(together, number):
    while together.waiting < number:
        threading.Event().wait(0.005)


def test_who_was_answered_does_not_wait_for_the_next_call(model, pool):
    together = Together(model, threading.Lock(), 2)
    first = pool.submit(together.ask, [1], -1)
    assert model.began.acquire(timeout=30)
    others = []
    for number in (2, 3, 4):
        others.append(pool.submit(together.ask, [number], -1))
        wait_until(together, len(others))
    model.go.set()
    assert first.result(30) == 2
    # the next call is that of two, which are told while the one after that is under way
    model.then.set()
    assert [other.result(30) for other in others] == [4, 6, 8]
    assert model.calls == [[1], [2, 3], [4]]


def test_who_waits_for_too_long_is_told_and_is_not_asked_for(model, pool):
    together = Together(model, threading.Lock(), 8)
    first = pool.submit(together.ask, [1], -1)
    assert model.began.acquire(timeout=30)
    with pytest.raises(TimeoutError):
        together.ask([2], 0.01)
    model.go.set()
    model.then.set()
    assert first.result(30) == 2
    assert together.ask([3], -1) == 6
    assert model.calls == [[1], [3]]


def test_who_leads_and_does_not_get_its_turn_leaves_it_to_the_next(model, pool):
    turn = threading.Lock()
    together = Together(model, turn, 8)
    with turn:
        with pytest.raises(TimeoutError):
            together.ask([1], 0.01)
        second = pool.submit(together.ask, [2], -1)
        wait_until(together, 1)
    model.go.set()
    assert second.result(30) == 4


def test_an_error_is_told_to_all(model, pool):
    together = Together(model, threading.Lock(), 8)
    model.then.set()
    first = pool.submit(together.ask, [1], -1)
    assert model.began.acquire(timeout=30)
    others = [pool.submit(together.ask, [number], -1) for number in (0, 5)]
    wait_until(together, 2)
    model.go.set()
    assert first.result(30) == 2
    for other in others:
        with pytest.raises(ZeroDivisionError):
            other.result(30)
    assert together.ask([6], -1) == 12
