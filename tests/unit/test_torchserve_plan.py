"""What a deploy to a TorchServe that runs decides, and what its answers are read as."""

import json

import pytest

from longshore.client.refusals import refused, words_of
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.serving.torchserve_handler import TabularHandler
from longshore.torchserve import ModelServer, Version, Worker, plan_deploy
from longshore.torchserve.logs import Logs
from longshore.torchserve.versions import order, read_version
from longshore.torchserve.waiting import alone

READY = (Worker(id="9000", status="READY", pid=7),)


def there(version, *, default=False, workers=1):
    return Version(model="m", version=version, archive=f"m-{version}.mar", default=default, min_workers=workers)


FOUND = (there("1"), there("2"), there("3", default=True), there("9"), there("10"))


@pytest.mark.parametrize(
    ("version", "found", "options", "expected"),
    [
        ("1", (), {}, {"register": True, "before": None, "move": True, "retire": ()}),
        ("4", FOUND, {}, {"register": True, "before": "3", "move": True, "retire": ()}),
        # what it replaces stays first, then the highest; what comes later is never touched
        ("4", FOUND, {"keep_versions": 2}, {"retire": ("1",)}),
        ("4", FOUND, {"keep_versions": 0}, {"retire": ("3", "2", "1")}),
        ("2", FOUND, {"keep_versions": 0}, {"register": False, "before": "3", "retire": ("3", "1")}),
        ("11", FOUND, {"keep_versions": 1}, {"retire": ("10", "9", "2", "1")}),
        # beside what serves: nothing moves, nothing goes
        ("4", FOUND, {"make_default": False, "keep_versions": 0}, {"move": False, "before": "3", "retire": ()}),
        ("3", FOUND, {}, {"register": False, "before": None, "move": False, "scale": None}),
        # workers are added and never taken away
        ("3", FOUND, {"workers": 2}, {"scale": 2}),
        ("3", (there("3", workers=4),), {"workers": 2}, {"scale": None}),
        ("3", (there("3", workers=0),), {}, {"scale": 1}),
        ("4", FOUND, {"workers": 3}, {"scale": 3}),
    ],
)
def test_what_is_done_is_decided_from_what_is_there(version, found, options, expected):
    plan = plan_deploy("m", version, found, **options)
    assert {name: getattr(plan, name) for name in expected} == expected


def test_a_plan_reads_as_what_will_be_done():
    plan = plan_deploy("m", "4", FOUND, workers=2, keep_versions=2)
    assert list(plan.steps()) == [
        "register version 4 of m",
        "give it 2 workers",
        "wait until its workers are ready, and ask /predictions/m/4 for its example rows",
        "make it the default in place of 3, and ask /predictions/m",
        "unregister version 1 once it has answered what it was asked",
    ]


@pytest.mark.parametrize("options", [{"keep_versions": -1}, {"workers": 0}])
def test_a_plan_without_sense_is_refused(options):
    with pytest.raises(InvalidValue):
        plan_deploy("m", "4", FOUND, **options)


def test_versions_are_ordered_as_people_count():
    assert sorted(["10", "9", "1.10", "1.9", "beta"], key=order) == ["1.9", "1.10", "9", "10", "beta"]


DESCRIBED = {
    "modelName": "m",
    "modelVersion": "3",
    "modelUrl": "m-3.mar",
    "minWorkers": 2,
    "maxWorkers": 3,
    "batchSize": 4,
    "responseTimeout": 60,
    "workers": [
        {"id": "9000", "status": "READY", "pid": 7},
        {"id": "9001", "status": "UNLOADING", "pid": -1},
    ],
    "jobQueueStatus": {"remainingCapacity": 99, "pendingRequests": 1},
}


def test_a_version_is_read_as_torchserve_describes_it():
    version = read_version(DESCRIBED, default="3")
    assert (version.default, version.ready, version.ready_workers, version.queued) == (True, False, 1, 1)
    assert [worker.pid for worker in version.workers] == [7, None]
    assert (version.batch_size, version.response_timeout_seconds) == (4, 60)
    assert str(version) == "m 3: 1 of 2 workers are ready"
    assert read_version({**DESCRIBED, "minWorkers": 1}, default="2").ready
    # one that was stopped does not answer, though it lacks nothing
    assert not read_version({**DESCRIBED, "minWorkers": 0, "workers": []}, default=None).ready
    with pytest.raises(DeployError, match="no description of a model on TorchServe"):
        read_version({"status": "Healthy"}, default=None)


@pytest.mark.parametrize("url", ["torchserve:8081", "ftp://torchserve", "http://", "http://me:secret@torchserve"])
def test_an_address_is_a_url_without_credentials(url):
    with pytest.raises(InvalidValue, match=r"ModelServer\.management"):
        ModelServer(management=url, inference="http://torchserve:8080")


def test_one_deploy_of_a_model_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path))
    server = ModelServer(management="http://t:8081", inference="http://t:8080")
    other = ModelServer(management="http://u:8081", inference="http://u:8080")
    with alone(server, "m", 1):
        busy = pytest.raises(DeployError, match="m on http://t:8081 has been in the hands of another deploy")
        with busy, alone(server, "m", 0.1):
            pass
        with alone(server, "n", 1), alone(other, "m", 1):
            pass
    with alone(server, "m", 1):
        pass


def test_torchserves_words_are_found_and_a_bad_token_is_no_bad_row():
    key = json.dumps({"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."})
    assert words_of(key) == "Token Authorization failed."
    assert isinstance(refused("http://t", 400, key), DeployError)
    assert isinstance(refused("http://t", 400, '{"error": "row 0"}'), InputError)


TRACEBACK = """\
2026-11-29 [INFO ] W-9000-{of}-stdout MODEL_LOG - Traceback (most recent call last):
2026-11-29 [INFO ] W-9000-{of}-stdout MODEL_LOG -   File "handler.py", line 4, in initialize
2026-11-29 [INFO ] W-9000-{of}-stdout MODEL_LOG - {error}
"""


def test_the_logs_tell_why_of_this_version_and_from_now_on(tmp_path):
    log = tmp_path / "model_log.log"
    log.write_text(TRACEBACK.format(of="m_3", error="ValueError: long ago"))
    logs = Logs(tmp_path, "m", "3")
    assert (logs.readable, logs.error()) == (True, None)
    with log.open("a") as stream:
        stream.write(TRACEBACK.format(of="m_3", error="RuntimeError: no room"))
        # with this a worker ends, whatever the reason
        stream.write(TRACEBACK.format(of="m_3", error="RuntimeError: 500 - Unknown exception"))
        stream.write(TRACEBACK.format(of="other_3", error="ValueError: another's"))
    assert logs.error() == "RuntimeError: no room"
    # one that has been begun anew is read whole
    log.write_text(TRACEBACK.format(of="m_3", error="ValueError: x"))
    assert logs.error() == "ValueError: x"
    assert not Logs(None, "m", "3").readable


class Context:
    """TorchServe's, of a request to describe the model."""

    def get_request_header(self, idx, key):
        return "True" if key == "describe" else None


def test_a_handler_says_which_model_it_answers_for(monkeypatch):
    handler = TabularHandler()
    loaded = type(
        "Loaded", (), {"version": "3", "digest": "sha256:1", "card": type("Card", (), {"task": "regression"})}
    )
    monkeypatch.setattr(handler, "_loaded", loaded)
    (told,) = handler.handle([{}], Context())
    assert {"version": "3", "digest": "sha256:1", "task": "regression"}.items() <= json.loads(told).items()
