"""The queue of one event loop: what goes together, what is refused, and who is told what."""

import asyncio
import threading

import pytest

from longshore.errors import InputError
from longshore.serving.batching import BatchQueue
from longshore.serving.core import Ask, Prediction
from longshore.serving.refusals import RequestError


class Model:
    """Stands for a predictor: answers each row with itself, notes its calls, and can be held up."""

    def __init__(self, batch_rows=10):
        self.batch_rows = batch_rows
        self.calls, self.threads, self.may = [], [], threading.Event()
        self.may.set()
        self.busy = False

    def answer_all(self, asks):
        self.calls.append([list(ask.rows) for ask in asks])
        self.threads.append(threading.current_thread())
        assert self.may.wait(30)
        return [InputError("no") if ask.rows == ["bad"] else Prediction(values=list(ask.rows)) for ask in asks]


def ask(*rows):
    return Ask(rows=list(rows))


async def values(waiting, *rows):
    return (await waiting.predict(ask(*rows))).values


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


def test_what_is_asked_at_once_is_predicted_in_one_call():
    model = Model()

    async def work():
        waiting = BatchQueue(model)
        return await asyncio.gather(*(values(waiting, number) for number in range(5)))

    assert run(work()) == [[0], [1], [2], [3], [4]]
    assert model.calls == [[[0], [1], [2], [3], [4]]]


def test_what_comes_while_the_model_is_busy_goes_together():
    model = Model()
    model.may.clear()

    async def work():
        waiting = BatchQueue(model)
        first = asyncio.create_task(values(waiting, "first"))
        while not model.calls:
            await asyncio.sleep(0)
        others = [asyncio.create_task(values(waiting, number)) for number in range(3)]
        await asyncio.sleep(0)
        # the loop is free meanwhile
        model.may.set()
        return await asyncio.gather(first, *others)

    assert run(work()) == [["first"], [0], [1], [2]]
    assert model.calls == [[["first"]], [[0], [1], [2]]]


def test_a_call_has_a_bound_that_a_single_request_may_pass():
    model = Model(batch_rows=3)

    async def work():
        waiting = BatchQueue(model)
        return await asyncio.gather(*(values(waiting, *range(size)) for size in (2, 2, 5, 1, 1, 1)))

    assert [len(answer) for answer in run(work())] == [2, 2, 5, 1, 1, 1]
    assert [[len(rows) for rows in call] for call in model.calls] == [[2], [2], [5], [1, 1, 1]]


def test_a_quick_model_is_asked_in_the_loop_and_one_that_others_ask_in_a_thread():
    model = Model()

    async def work():
        waiting = BatchQueue(model)
        for number in range(40):
            await values(waiting, number)
        model.busy = True
        await values(waiting, "busy")

    run(work())
    here = threading.current_thread()
    assert model.threads[0] is not here
    assert model.threads[-2] is here
    assert model.threads[-1] is not here


def test_too_many_are_told_to_come_again():
    model = Model()
    model.may.clear()

    async def work():
        waiting = BatchQueue(model, waiting=2)
        first = asyncio.create_task(values(waiting, "first"))
        while not model.calls:
            await asyncio.sleep(0)
        others = [asyncio.create_task(values(waiting, number)) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="2 requests wait for the model already") as caught:
            await waiting.predict(ask("late"))
        assert caught.value.status == 503
        model.may.set()
        await asyncio.gather(first, *others)
        return await values(waiting, "later")

    assert run(work()) == ["later"]


def test_an_error_and_a_client_that_goes_away_are_no_others_business():
    model = Model()
    model.may.clear()

    async def work():
        waiting = BatchQueue(model)
        first = asyncio.create_task(values(waiting, "first"))
        while not model.calls:
            await asyncio.sleep(0)
        bad, gone, good = (asyncio.create_task(values(waiting, row)) for row in ("bad", "gone", "good"))
        await asyncio.sleep(0)
        gone.cancel()
        model.may.set()
        with pytest.raises(InputError, match="no"):
            await bad
        return await asyncio.gather(first, good)

    assert run(work()) == [["first"], ["good"]]


def test_who_waits_too_long_is_told_and_those_behind_go_on():
    model = Model()
    model.may.clear()

    async def work():
        waiting = BatchQueue(model, seconds=0.02)
        first = asyncio.create_task(values(waiting, "first"))
        while not model.calls:
            await asyncio.sleep(0)
        second = asyncio.create_task(values(waiting, "second"))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        third = asyncio.create_task(values(waiting, "third"))
        await asyncio.sleep(0)
        model.may.set()
        return outcomes, await third

    outcomes, third = run(work())
    assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]
    assert third == ["third"]
    # the model was not asked what nobody waits for
    assert [["second"]] not in model.calls
    assert model.calls[0] == [["first"]]
