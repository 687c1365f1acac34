"""The files in which the local runtime remembers its servers, and the lock on them."""

import os
import threading
from dataclasses import replace

import pytest

from longshore.errors import DeployError, InvalidValue
from longshore.local import LocalRuntime, deployed_by, list_servers, log_paths, stop
from longshore.local import state as states
from longshore.local.runtime import _pruned
from longshore.local.state import Record, ServiceState
from longshore.targets.base import Ref

REF = Ref("local.longshore.dev/v1alpha1", "ModelServer", "penguins")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path))
    return tmp_path


def manifest(revision="r-0"):
    return {
        "apiVersion": REF.api_version,
        "kind": REF.kind,
        "metadata": {"name": "penguins"},
        "spec": {
            "revision": revision,
            "traffic": 100,
            "port": None,
            "replicas": 1,
            "router": None,
            "model": {"name": "penguins", "version": None},
        },
    }


def record(revision, **changes):
    known = {"manifest": manifest(revision), "state": "failed", "pid": 1, "since": f"2026-01-01T00:00:{revision[-1]}"}
    return Record(revision=revision, **{**known, **changes})


def service(**changes):
    return ServiceState(**{"name": "penguins", "manifest": manifest(), **changes})


def test_what_was_saved_is_loaded():
    saved = service(port=8080, active="r-0", records={"r-0": record("r-0", state="ready", port=1234, run="run-1")})
    states.save(saved)
    assert states.load("penguins") == saved
    assert states.names() == ["penguins"]
    assert states.load("others") is None


def test_the_folder_of_a_service_is_private():
    states.save(service())
    assert states.folder("penguins").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "penguins", "records": {}, "colour": "red"}'])
def test_a_state_that_cannot_be_understood_names_its_file(text):
    states.save(service())
    path = states.folder("penguins") / "service.json"
    path.write_text(text)
    for ask in (lambda: states.load("penguins"), list_servers, lambda: stop("penguins"), lambda: log_paths("penguins")):
        with pytest.raises(DeployError, match="service.json is not what this version of longshore writes"):
            ask()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a"])
def test_a_name_cannot_leave_the_state_folder(name):
    with pytest.raises(InvalidValue):
        states.folder(name)


def test_a_state_that_cannot_be_written_is_told_and_leaves_the_old_one(monkeypatch):
    states.save(service(port=1))
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DeployError, match="No space left"):
        states.save(service(port=2))
    assert states.load("penguins").port == 1
    assert [path.name for path in states.folder("penguins").iterdir()] == ["service.json"]


def test_the_active_revision_is_never_forgotten():
    records = {f"r-{n}": record(f"r-{n}") for n in range(9)}
    kept = _pruned(service(active="r-0", manifest=manifest("r-8"), records=records))
    assert sorted(kept.records) == ["r-0", "r-3", "r-4", "r-5", "r-6", "r-7", "r-8"]
    states.save(kept)
    assert deployed_by("run-1") == []


def test_a_revision_that_has_a_part_is_never_forgotten():
    records = {f"r-{n}": record(f"r-{n}") for n in range(9)}
    wanted = manifest("r-8")
    wanted["spec"] |= {"traffic": 0, "router": {"shares": {"r-1": 100}, "mirrorPercent": 10}}
    kept = _pruned(service(manifest=wanted, records=records))
    assert sorted(kept.records) == ["r-1", "r-3", "r-4", "r-5", "r-6", "r-7", "r-8"]


def test_servers_are_named_after_their_revision_and_go_with_it():
    wanted = manifest("r-0")
    wanted["spec"]["replicas"] = 3
    records = {f"r-0.{n}": record("r-0", manifest=wanted, replica=n) for n in (2, 3)}
    current = service(manifest=manifest("r-9"), records={"r-0": record("r-0", manifest=wanted), **records})
    assert current.servers_of("r-0") == ["r-0", "r-0.2", "r-0.3"] == [one.server for one in current.records.values()]
    assert current.servers_of("r-1") == []
    assert _pruned(current) == current
    later = {f"r-{n}": record(f"r-{n}") for n in range(1, 7)}
    assert set(_pruned(replace(current, records={**current.records, **later})).records) == {
        f"r-{n}" for n in range(2, 7)
    }


def test_forgotten_revisions_leave_no_file():
    current = service(manifest=manifest("r-6"), records={f"r-{n}": record(f"r-{n}") for n in range(7)})
    states.save(current)
    for path in (current.path("r-0", "log"), current.path("r-0", "lock"), current.control("r-0")):
        path.touch()
    _pruned(current)
    assert [path.name for path in states.folder("penguins").iterdir()] == ["service.json"]


def test_a_long_home_gets_a_short_private_socket_path(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / ("long" * 40)))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    path = service().control("r-0")
    assert len(os.fsencode(path)) < len(os.fsencode(states.folder("penguins")))
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path != service().control("r-1")


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_socket_folder_that_others_could_turn_is_refused(tmp_path, monkeypatch, trap):
    monkeypatch.setenv("LONGSHORE_HOME", str(tmp_path / ("long" * 40)))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    place = tmp_path / f"longshore-{os.getuid()}"
    if trap == "open":
        place.mkdir()
        place.chmod(0o777)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeployError, match="only you can open"):
        service().control("r-0")


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [("", 5, ""), ("a\n\n \nb\n", 5, "a\nb"), ("a\nb\nc\n", 2, "b\nc"), ("x" * 9000 + "\nend", 1, "end")],
)
def test_the_tail_of_a_log(tmp_path, text, lines, expected):
    path = tmp_path / "log"
    path.write_text(text)
    assert states.tail(path, lines) == expected


def test_no_log_has_no_tail(tmp_path):
    assert states.tail(tmp_path / "none") == ""


def test_who_holds_a_service_is_told():
    with (
        states.deploy_lock("penguins"),
        pytest.raises(DeployError, match=f"in the hands of process {os.getpid()} for 0.05 s"),
        states.deploy_lock("penguins", timeout_seconds=0.05),
    ):
        pass


def test_a_lock_on_nothing_leaves_no_file(home):
    with states.deploy_lock("penguins"):
        assert (home / "local" / "penguins.deploy").exists()
    assert list((home / "local").iterdir()) == []


def test_a_lock_on_a_service_keeps_its_file(home):
    states.save(service())
    with states.deploy_lock("penguins"):
        pass
    assert (home / "local" / "penguins.deploy").exists()


def test_many_who_lock_and_remove_are_never_two_at_a_time():
    inside, most = [], []

    def work():
        for _ in range(20):
            with states.deploy_lock("penguins", timeout_seconds=30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_deleting_what_is_not_there_is_no_error():
    LocalRuntime().delete([REF])


def test_another_kind_is_not_found():
    states.save(service())
    assert LocalRuntime().get(Ref("v1", "Service", "penguins")) is None
