"""The engine, against a platform and a place that exist only in memory and can be told to fail."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from longshore.errors import DeployError, RegistryError
from longshore.release import current_release, deploy, previous_release
from longshore.spec import Endpoint, Health, ModelSource, Release, Service, Traffic
from longshore.targets.base import Manifest, Ref, Selection

SERVICE = Ref("test/v1", "Thing", "iris")


def release(version: str, percent: int = 100) -> Release:
    model = ModelSource(uri=f"/models/iris/{version}", format="sklearn", name="iris", version=version)
    return Release(service=Service(name="iris"), model=model, traffic=Traffic(percent=percent))


class Things:
    """A target with one object; a model version is healthy unless the test says otherwise."""

    name = "things"

    def __init__(self, *, previews: bool) -> None:
        self.previews = previews

    def render(self, release: Release) -> list[Manifest]:
        spec = {"revision": release.revision, "traffic": release.traffic.percent, "version": release.model.version}
        return [{"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": release.service.name}, "spec": spec}]

    def objects(self, service: Service) -> list[Ref]:
        return [SERVICE]

    def children(self, service: Service) -> Sequence[Selection]:
        return ()

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        status = observed[0].get("status", {})
        if status.get("revision") != release.revision:
            return Health.progressing("the new revision has not been seen yet")
        if status.get("broken"):
            return Health.failed(status["broken"])
        return Health.ready()

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        return Endpoint(
            name="iris",
            url="http://service",
            revision_url=f"http://{release.revision}" if self.previews else None,
            model="iris",
            revision=release.revision,
        )


@dataclass
class Memory:
    """A runtime whose objects come true at once, or break as told."""

    broken: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    objects: dict[Ref, Manifest] = field(default_factory=dict)
    applied: list[tuple[str, int]] = field(default_factory=list)
    locked: bool = False

    def apply(self, objects: Sequence[Manifest]) -> list[Ref]:
        assert self.locked
        for manifest in copy.deepcopy(list(objects)):
            spec = manifest["spec"]
            self.applied.append((spec["version"], spec["traffic"]))
            if spec["version"] not in self.silent:
                manifest["status"] = {"revision": spec["revision"], "broken": self.broken.get(spec["version"])}
            self.objects[Ref.of(manifest)] = manifest
        return [Ref.of(manifest) for manifest in objects]

    def get(self, ref: Ref) -> Manifest | None:
        return copy.deepcopy(self.objects.get(ref))

    def reach(self, endpoint: Endpoint) -> contextlib.AbstractContextManager[Endpoint]:
        return contextlib.nullcontext(endpoint)

    def observe(
        self, refs: Sequence[Ref], *, also: Sequence[Selection] = (), deadline: float
    ) -> Iterator[Sequence[Manifest]]:
        yield [copy.deepcopy(self.objects[ref]) for ref in refs]

    def delete(self, refs: Sequence[Ref]) -> None:
        for ref in refs:
            self.objects.pop(ref, None)

    @contextlib.contextmanager
    def lock(self, ref: Ref) -> Iterator[None]:
        assert not self.locked
        self.locked = True
        try:
            yield
        finally:
            self.locked = False


@dataclass
class Notes:
    said: list[tuple] = field(default_factory=list)
    down: bool = False

    def serving(self, release, endpoint, previous):
        self._say("serving", release.model.version, previous.model.version if previous else None)

    def failed(self, release, serving, reason):
        self._say("failed", release.model.version, serving.model.version if serving else None, reason)

    def _say(self, *words):
        if self.down:
            raise RegistryError("the registry is down")
        self.said.append(words)


@pytest.fixture(params=[True, False], ids=["previews", "no-previews"])
def target(request):
    return Things(previews=request.param)


def serves(runtime: Memory) -> str | None:
    found = current_release(SERVICE, runtime)
    return found.model.version if found else None


def test_a_first_deploy_serves_and_is_recorded(target):
    runtime, notes, asked = Memory(), Notes(), []
    done = deploy(release("1"), target=target, runtime=runtime, probe=lambda e: asked.append(e.url), recorder=notes)
    assert done.endpoint.url == "http://service"
    assert done.previous is None
    assert serves(runtime) == "1"
    assert notes.said == [("serving", "1", None)]
    candidate = f"http://{done.release.revision}"
    assert asked == ([candidate, "http://service"] if target.previews else ["http://service"])
    assert runtime.applied == ([("1", 0), ("1", 100)] if target.previews else [("1", 100)])


def test_objects_say_who_made_them():
    runtime = Memory()
    deploy(release("1"), target=Things(previews=False), runtime=runtime)
    assert runtime.get(SERVICE)["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "longshore"}


def test_a_second_deploy_knows_what_it_replaced(target):
    runtime, notes = Memory(), Notes()
    for version in ("1", "2"):
        done = deploy(release(version), target=target, runtime=runtime, recorder=notes)
    assert done.previous == release("1")
    assert previous_release(SERVICE, runtime) == release("1")
    assert notes.said[-1] == ("serving", "2", "1")


def test_a_broken_revision_is_told_and_what_served_is_restored(target):
    runtime, notes = Memory(broken={"2": "CrashLoopBackOff: no module named x"}), Notes()
    deploy(release("1"), target=target, runtime=runtime)
    with pytest.raises(DeployError, match="CrashLoopBackOff: no module named x") as caught:
        deploy(release("2"), target=target, runtime=runtime, recorder=notes)
    assert caught.value.restored == release("1").revision
    assert "serves as before" in str(caught.value)
    assert serves(runtime) == "1"
    assert runtime.applied[-1] == ("1", 100)
    assert notes.said == [("failed", "2", "1", "CrashLoopBackOff: no module named x")]
    if target.previews:
        assert ("2", 100) not in runtime.applied


def test_a_broken_first_revision_leaves_nothing(target):
    runtime = Memory(broken={"1": "no"})
    with pytest.raises(DeployError, match="nothing was left behind") as caught:
        deploy(release("1"), target=target, runtime=runtime)
    assert caught.value.restored is None
    assert runtime.objects == {}


def test_a_revision_that_never_shows_up_says_what_was_missing(target):
    runtime = Memory(silent={"1"})
    with pytest.raises(DeployError, match=r"not ready after 5 s: the new revision has not been seen yet"):
        deploy(release("1"), target=target, runtime=runtime, timeout_seconds=5)


@pytest.mark.parametrize("error", [DeployError("wrong answer"), KeyboardInterrupt(), ZeroDivisionError("bug")])
def test_whatever_ends_the_probe_restores(target, error):
    runtime = Memory()
    deploy(release("1"), target=target, runtime=runtime)

    def probe(_endpoint):
        raise error

    with pytest.raises(type(error)):
        deploy(release("2"), target=target, runtime=runtime, probe=probe)
    assert serves(runtime) == "1"


def test_a_candidate_that_fails_its_probe_never_gets_traffic():
    runtime = Memory()

    def probe(_endpoint):
        raise DeployError("wrong answer")

    with pytest.raises(DeployError, match="wrong answer"):
        deploy(release("1"), target=Things(previews=True), runtime=runtime, probe=probe)
    assert runtime.applied == [("1", 0)]


def test_when_restoring_fails_too_both_reasons_are_told(target):
    runtime = Memory()
    deploy(release("1"), target=target, runtime=runtime)
    runtime.broken = {"1": "the node is gone", "2": "image not found"}
    with pytest.raises(DeployError, match=r"image not found.*could not be restored.*the node is gone") as caught:
        deploy(release("2"), target=target, runtime=runtime)
    assert caught.value.restored is None


def test_deploying_the_same_again_keeps_the_way_back(target):
    runtime = Memory()
    for version in ("1", "2", "2"):
        deploy(release(version), target=target, runtime=runtime)
    assert previous_release(SERVICE, runtime) == release("1")
    assert runtime.applied[-1] == ("2", 100)


def test_the_same_revision_failing_is_not_called_restored(target):
    runtime = Memory()
    deploy(release("1"), target=target, runtime=runtime)
    runtime.broken = {"1": "out of memory"}
    with pytest.raises(DeployError, match="the failing revision is the one that served before"):
        deploy(release("1"), target=target, runtime=runtime)


def test_another_wish_for_the_same_revision_is_taken_back(target):
    runtime = Memory()
    first = deploy(release("1"), target=target, runtime=runtime)

    def refuse(_endpoint):
        raise DeployError("no answer")

    with pytest.raises(DeployError, match="serves as before") as caught:
        deploy(release("1", 50), target=target, runtime=runtime, probe=refuse)
    assert caught.value.restored == first.release.revision
    assert runtime.applied[-1] == ("1", 100)


def test_a_candidate_left_by_a_killed_deploy_is_not_what_serves():
    runtime, target = Memory(), Things(previews=True)
    deploy(release("1"), target=target, runtime=runtime)

    def die(_endpoint):
        raise SystemExit

    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("longshore.release._Attempt.give_up", lambda *_: None)
        deploy(release("2"), target=target, runtime=runtime, probe=die)
    assert runtime.get(SERVICE)["spec"]["version"] == "2"
    assert current_release(SERVICE, runtime) == release("1")


def test_deploying_the_earlier_release_goes_back_and_can_be_undone(target):
    runtime, notes = Memory(), Notes()
    for version in ("1", "2"):
        deploy(release(version), target=target, runtime=runtime)
    deploy(previous_release(SERVICE, runtime), target=target, runtime=runtime, recorder=notes)
    assert serves(runtime) == "1"
    assert notes.said == [("serving", "1", "2")]
    deploy(previous_release(SERVICE, runtime), target=target, runtime=runtime)
    assert serves(runtime) == "2"


def test_nothing_came_before_the_first_release(target):
    runtime = Memory()
    assert current_release(SERVICE, runtime) is None
    deploy(release("1"), target=target, runtime=runtime)
    assert previous_release(SERVICE, runtime) is None


def test_a_registry_that_is_down_does_not_take_the_service_down(target):
    runtime = Memory()
    with pytest.raises(DeployError, match=r"serves at http://service, but this could not be recorded"):
        deploy(release("1"), target=target, runtime=runtime, recorder=Notes(down=True))
    assert serves(runtime) == "1"


def test_a_registry_that_is_down_does_not_hide_why_a_deploy_failed(target):
    runtime = Memory(broken={"1": "image not found"})
    with pytest.raises(DeployError, match=r"image not found.*could not be recorded: the registry is down"):
        deploy(release("1"), target=target, runtime=runtime, recorder=Notes(down=True))


def test_progress_is_told_once_per_change(target):
    said = []
    with pytest.raises(DeployError):
        deploy(release("1"), target=target, runtime=Memory(silent={"1"}), timeout_seconds=1, on_progress=said.append)
    assert said == [f"{release('1').revision}: the new revision has not been seen yet"]


def test_traffic_of_nought_only_tries_a_release_out():
    runtime = Memory()
    deploy(replace(release("1"), traffic=Traffic(percent=0)), target=Things(previews=True), runtime=runtime)
    assert runtime.applied == [("1", 0)]


def test_what_was_refused_before_it_changed_anything_needs_no_restoring(target):
    runtime = Memory()
    first = deploy(release("1"), target=target, runtime=runtime).release

    class Refuses(Memory):
        def apply(self, objects):
            raise DeployError("refused")

    refusing = Refuses(objects=runtime.objects)
    with pytest.raises(DeployError, match=f"refused. Revision {first.revision} serves as before") as failure:
        deploy(release("2"), target=target, runtime=refusing)
    assert failure.value.restored == first.revision
    assert current_release(SERVICE, refusing) == first
