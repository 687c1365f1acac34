import threading

import pytest

from longshore.serving.threads import Threads


@pytest.fixture
def start():
    """Starts threads, whose ends are waited for."""
    begun, before = [], set(threading.enumerate())

    def start(count, idle=lambda: None):
        threads = Threads(count, idle)
        threads.start()
        begun.append(threads)
        return threads

    yield start
    for threads in begun:
        threads.shutdown()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)


def test_what_is_ready_is_done_in_order_by_one_thread_that_tells_once_it_is_through(start):
    done, through = [], threading.Semaphore(0)
    threads = start(4, through.release)
    for number in range(100):
        threads.submit(lambda number=number: done.append((number, threading.get_ident())))
    assert threads.waited_for
    threads.provide()
    assert through.acquire(timeout=30)
    assert [number for number, _ in done] == list(range(100))
    assert len({thread for _, thread in done}) == 1
    assert not threads.waited_for
    assert not through.acquire(blocking=False)


def test_others_do_what_is_ready_while_threads_wait(start):
    threads = start(3)
    go, done = threading.Event(), threading.Event()
    threads.submit(lambda: go.wait(30))
    threads.submit(lambda: go.wait(30))
    threads.submit(done.set)
    while not done.wait(0.002):
        threads.provide()
    assert not go.is_set()
    go.set()


def test_all_threads_wait_at_most(start):
    threads = start(2)
    go, done = threading.Event(), threading.Event()
    began = threading.Semaphore(0)

    def wait():
        began.release()
        go.wait(30)

    for work in (wait, wait, done.set):
        threads.submit(work)
    for _ in range(2):
        while not began.acquire(timeout=0.002):
            threads.provide()
    threads.provide()
    assert not done.is_set()
    go.set()
    assert done.wait(30)


def test_a_thread_that_is_about_to_wait_makes_way(start):
    threads = start(2)
    done = threading.Event()

    def wait():
        threads.make_way()
        assert done.wait(30)

    threads.submit(wait)
    threads.submit(done.set)
    threads.provide()
    assert done.wait(30)


def test_one_work_by_itself_is_known_as_such(start):
    threads = start(2)
    alone = []
    for count in (1, 2, 1):
        done = threading.Semaphore(0)
        for _ in range(count):
            threads.submit(lambda done=done: (alone.append(threads.alone), done.release()))
        threads.provide()
        for _ in range(count):
            assert done.acquire(timeout=30)
        while threads.busy:
            done.acquire(timeout=0.002)
    assert alone == [True, False, False, True]
