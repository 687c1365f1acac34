"""Longshore's nodes of graphs inside Seldon Core's own microservice, over REST and gRPC."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from harness.seldon import microservice, serving

PLACE = {"PREDICTIVE_UNIT_ID": "bandit", "GUNICORN_WORKERS": "2"}
ROW = {"data": {"names": ["a"], "ndarray": [[1.0]]}}


@pytest.fixture(scope="module")
def bandit(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("bandit") / "log",
        "--service-type=ROUTER",
        run="longshore.serving.seldon_router.EpsilonGreedy",
        parameters={"branches": "first,second,third", "epsilon": 0.0, "best_branch": 1},
        variables=PLACE,
    ) as one:
        yield one


@pytest.fixture(scope="module")
def mean(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("mean") / "log",
        "--service-type=COMBINER",
        run="longshore.serving.seldon_router.AverageCombiner",
    ) as one:
        yield one


def feedback(branch, reward, unit="bandit"):
    return {"request": ROW, "response": {"meta": {"routing": {unit: branch}}}, "reward": reward}


def routed(server, body=None):
    answer = server.post("/route", body or ROW)
    assert answer.ok, answer.text
    return answer.json()["data"]["ndarray"][0][0]


def over_grpc(server, method, message):
    """Ask as Seldon's executor does, with messages that are written by hand."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        return channel.unary_unary(f"/seldon.protos.{method}")(message, timeout=30)


def test_all_workers_over_rest_and_grpc_learn_together(bandit):
    assert {routed(bandit) for _ in range(20)} == {1}
    # whatever is asked, only who asked is looked at
    assert routed(bandit, {"strData": "text"}) == routed(bandit, {"jsonData": {"a": 1}}) == 1
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda _: bandit.post("/send-feedback", feedback(2, 1.0)), range(40)))
    assert [one.status_code for one in sent] == [200] * 40
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: routed(bandit), range(40))) == {2}
    # a SeldonMessage with nothing in it, and the number of the branch at the end of a tensor
    answer = over_grpc(bandit, "Router/Route", b"")
    assert answer.endswith(b"\x00\x00\x00\x00\x00\x00\x00@")
    assert bandit.counted("longshore_bandit_feedback_total", branch="third") == 40
    assert bandit.counted("longshore_bandit_reward", branch="third") == 40
    for _ in range(50):
        assert bandit.post("/send-feedback", feedback(2, -1.0)).ok
    # it has an average below 0 by now
    assert routed(bandit) == 1
    assert bandit.counted("longshore_bandit_reward", branch="third") == -10


def test_a_feedback_that_is_none_is_refused_or_left_out(bandit):
    before = bandit.counted("longshore_bandit_feedback_total")
    refused = bandit.post("/send-feedback", feedback(3, 1.0))
    assert refused.status_code == 400
    assert "there is no branch 3: they are 0 to 2" in refused.json()["status"]["info"]
    assert bandit.post("/send-feedback", feedback(0, 1.0, unit="another")).ok
    assert bandit.post("/send-feedback", {"request": ROW, "reward": 1.0}).ok
    assert bandit.counted("longshore_bandit_feedback_total") == before
    assert "names no child in meta.routing['bandit']" in bandit.log.read_text()


def test_answers_are_averaged(mean):
    answers = [{"data": {"names": ["no", "yes"], "ndarray": [[a, 1 - a]]}} for a in (0.25, 0.75)]
    answer = mean.post("/aggregate", {"seldonMessages": answers})
    assert answer.json()["data"] == {"names": ["no", "yes"], "ndarray": [[0.5, 0.5]]}
    words = [{"data": {"ndarray": [["yes"]]}}, {"data": {"ndarray": [["no"]]}}]
    refused = mean.post("/aggregate", {"seldonMessages": words})
    assert refused.status_code == 400
    assert "have the models answer with probabilities" in refused.json()["status"]["info"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"branches": "a,b", "epsilon": 2.0}, "epsilon = 2.0 is not valid"),
        ({"branches": "a"}, "branches = 1 is not valid"),
        ({"branches": "a,b", "n_branches": 2}, "there is branches, epsilon, best_branch, seed"),
    ],
)
def test_parameters_that_are_not_valid_are_told(parameters, words, tmp_path):
    with microservice(
        tmp_path / "log",
        "--service-type=ROUTER",
        run="longshore.serving.seldon_router.EpsilonGreedy",
        parameters=parameters,
    ) as one:
        assert one.process.wait(60) != 0
        assert words in one.log.read_text()
