"""The bandit and the average that Seldon's graphs get from longshore."""

import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.errors import InputError, InvalidValue
from longshore.serving.bandit import EpsilonGreedy, average


def test_it_takes_the_best_and_the_others_as_often_as_it_is_told():
    bandit = EpsilonGreedy(4, epsilon=0.3, seed=1)
    bandit.learn(2, 1.0)
    chosen = [bandit.choose() for _ in range(10_000)]
    shares = [chosen.count(branch) / len(chosen) for branch in range(4)]
    # a standard error of 0.005 for the best, 0.003 for each of the others
    assert shares == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.02)


@pytest.mark.parametrize(("epsilon", "others"), [(0.0, 0), (1.0, 200)])
def test_never_and_always_another_one(epsilon, others):
    bandit = EpsilonGreedy(2, epsilon=epsilon, best_branch=1, seed=1)
    assert sum(bandit.choose() != 1 for _ in range(200)) == others


def test_it_finds_the_branch_that_earns_most():
    """Two arms that pay with probabilities 0.2 and 0.6: nearly all requests end at the better one."""
    bandit, draw = EpsilonGreedy(2, epsilon=0.1, best_branch=0, seed=3), np.random.default_rng(3)
    chosen = []
    for _ in range(3000):
        branch = bandit.choose()
        bandit.learn(branch, float(draw.random() < (0.2, 0.6)[branch]))
        chosen.append(branch)
    assert np.mean(chosen[-1000:]) > 0.85
    assert bandit.averages == pytest.approx([0.2, 0.6], abs=0.07)
    assert sum(bandit.counts) == 3000


def test_what_is_equally_good_is_drawn_unless_one_is_preferred():
    assert {EpsilonGreedy(3, epsilon=0, seed=seed).choose() for seed in range(50)} == {0, 1, 2}
    preferred = EpsilonGreedy(3, epsilon=0, best_branch=2)
    assert preferred.choose() == 2
    preferred.learn(0, 0.5)
    assert preferred.choose() == 0
    preferred.learn(0, -2.0)
    assert preferred.choose() == 2


def test_processes_learn_together_in_shared_memory():
    shared = multiprocessing.Array("d", 4)
    ours, theirs = (EpsilonGreedy(2, epsilon=0, state=shared.get_obj()) for _ in range(2))
    ours.learn(1, 0.5)
    theirs.learn(1, 1.0)
    assert (ours.counts, theirs.averages, theirs.choose()) == ([0, 2], [0, 0.75], 1)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"branches": 1}, "branches"),
        ({"branches": True}, "branches"),
        ({"branches": 2, "epsilon": 1.1}, "epsilon"),
        ({"branches": 2, "epsilon": float("nan")}, "epsilon"),
        ({"branches": 2, "best_branch": 2}, "best_branch"),
        ({"branches": 2, "best_branch": -1}, "best_branch"),
    ],
)
def test_what_is_no_bandit(given, field):
    with pytest.raises(InvalidValue) as refused:
        EpsilonGreedy(**given)
    assert refused.value.field == field


@pytest.mark.parametrize(("branch", "reward"), [(-1, 1.0), (2, 1.0), (0, float("nan")), (1, float("inf"))])
def test_what_cannot_be_learnt_changes_nothing(branch, reward):
    bandit = EpsilonGreedy(2)
    with pytest.raises(InputError):
        bandit.learn(branch, reward)
    assert (bandit.counts, bandit.averages) == ([0, 0], [0, 0])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6)), max_size=30),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_it_always_chooses_one_of_them_and_averages_are_those_of_the_rewards(rewards, epsilon, seed):
    bandit = EpsilonGreedy(3, epsilon=epsilon, seed=seed)
    for branch, reward in rewards:
        bandit.learn(branch, reward)
    assert bandit.choose() in range(3)
    for branch in range(3):
        came = [reward for one, reward in rewards if one == branch]
        assert bandit.averages[branch] == pytest.approx(np.mean(came) if came else 0.0, abs=1e-6)


def test_an_average_is_taken_number_by_number():
    assert average([[[0.2, 0.8]], [[0.4, 0.6]]]) == pytest.approx(np.array([[0.3, 0.7]]))
    assert average([np.array([3])]) == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([], "no answer"),
        ([["a"], ["b"]], "answer with probabilities"),
        ([[1, 2], [1, 2, 3]], "different shapes"),
        ([[1, 2], [[1, 2]]], "different shapes"),
        ([[[1, 2], [3]]], "no numbers"),
    ],
)
def test_what_has_no_average(answers, words):
    with pytest.raises(InputError, match=words):
        average(answers)
