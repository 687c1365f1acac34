"""The engine, against a platform and a place that exist only in memory and can be told to fail."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from longshore.errors import DeployError, InvalidValue, RegistryError
from longshore.release import current_release, deploy, previous_release, remove
from longshore.spec import Endpoint, Health, ModelSource, Release, Service, Traffic
from longshore.targets.base import Manifest, Need, Ref, Selection

SERVICE = Ref("test/v1", "Thing", "iris")


def release(version: str, percent: int = 100) -> Release:
    model = ModelSource(uri=f"/models/iris/{version}", format="sklearn", name="iris", version=version)
    return Release(service=Service(name="iris"), model=model, traffic=Traffic(percent=percent))


class Things:
    """A target with one object; a model version is healthy unless the test says otherwise."""

    def __init__(self, *, previews: bool) -> None:
        self._previews = previews
        self.wants: dict[str, Need] = {}

    def previews(self, service: Service) -> bool:
        return self._previews

    def render(self, release: Release) -> list[Manifest]:
        spec = {"revision": release.revision, "traffic": release.traffic.percent, "version": release.model.version}
        return [{"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": release.service.name}, "spec": spec}]

    def objects(self, service: Service) -> list[Ref]:
        return [SERVICE]

    def children(self, release: Release) -> Sequence[Selection]:
        return ()

    def needs(self, release: Release) -> dict[str, Ref | Need]:
        secrets = {f"Service.secrets[{i}]": Ref("v1", "Secret", name) for i, name in enumerate(release.service.secrets)}
        return {**secrets, **self.wants}

    def revisions(self, service: Service) -> Sequence[Selection]:
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
            revision_url=f"http://{release.revision}" if self._previews else None,
            model="iris",
            revision=release.revision,
        )


@dataclass
class Memory:
    """A runtime whose objects come true at once, or break as told."""

    broken: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
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

    def exists(self, ref: Ref) -> bool | None:
        return None if ref.name in self.hidden else ref in self.objects

    def look(self, what: Ref | Selection) -> Sequence[Manifest] | None:
        return [m for ref, m in self.objects.items() if ref.kind == what.kind] if what.kind not in self.hidden else None

    def reach(self, endpoint: Endpoint) -> contextlib.AbstractContextManager[Endpoint]:
        return contextlib.nullcontext(endpoint)

    def observe(
        self, refs: Sequence[Ref], *, also: Sequence[Selection] = (), deadline: float
    ) -> Iterator[Sequence[Manifest]]:
        yield [copy.deepcopy(self.objects[ref]) for ref in refs]

    def find(self, selection: Selection) -> Sequence[Manifest]:
        return [copy.deepcopy(m) for m in self.objects.values() if m["kind"] == selection.kind]

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
    assert asked == ([candidate, "http://service"] if target.previews(Service(name="iris")) else ["http://service"])
    assert runtime.applied == ([("1", 0), ("1", 100)] if target.previews(Service(name="iris")) else [("1", 100)])


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
    if target.previews(Service(name="iris")):
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

    other = replace(first.release, service=Service(name="iris", labels={"team": "b"}))
    assert other.revision == first.release.revision
    with pytest.raises(DeployError, match="serves as before") as caught:
        deploy(other, target=target, runtime=runtime, probe=refuse)
    assert caught.value.restored == first.release.revision
    assert current_release(target.objects(other.service)[0], runtime) == first.release


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


def with_secret(version: str) -> Release:
    plain = release(version)
    return replace(plain, service=replace(plain.service, secrets=["bucket"]))


def test_a_secret_that_is_not_there_is_refused_before_anything_is_applied(target):
    runtime = Memory()
    deploy(release("1"), target=target, runtime=runtime)
    before = copy.deepcopy(runtime.objects)
    with pytest.raises(InvalidValue, match=r"Service.secrets\[0\] = 'bucket' is not valid: there is no Secret"):
        deploy(with_secret("2"), target=target, runtime=runtime)
    assert runtime.objects == before
    runtime.objects[Ref("v1", "Secret", "bucket")] = {}
    deploy(with_secret("2"), target=target, runtime=runtime)
    assert serves(runtime) == "2"


def test_a_secret_that_may_not_be_looked_for_is_left_to_the_pods(target):
    runtime, said = Memory(hidden={"bucket"}), []
    deploy(with_secret("1"), target=target, runtime=runtime, on_progress=said.append)
    assert serves(runtime) == "1"
    assert "Secret bucket may not be looked for" in said[0]


class Lanes(Things):
    """A target with an object for the service, and one for each revision beside it."""

    def __init__(self) -> None:
        super().__init__(previews=True)

    def render(self, release: Release) -> list[Manifest]:
        (service,) = super().render(release)
        labels = {"longshore.dev/revision": release.revision}
        lane = {**copy.deepcopy(service), "kind": "Lane", "metadata": {"name": release.revision, "labels": labels}}
        service["spec"]["base"] = release.traffic.base
        service["spec"]["others"] = release.traffic.others
        service["spec"]["beside"] = [one.model.version for one in release.beside]
        return [service, lane]

    def revisions(self, service: Service) -> Sequence[Selection]:
        return [Selection("test/v1", "Lane", service.namespace)]

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        return replace(super().endpoint(release, observed), revision_url=f"http://{release.revision}")


def lanes(runtime: Memory) -> set[str]:
    """Model versions that have a lane."""
    return {manifest["spec"]["version"] for ref, manifest in runtime.objects.items() if ref.kind == "Lane"}


def shared(runtime: Memory) -> tuple[str, int, str | None]:
    spec = runtime.objects[SERVICE]["spec"]
    return spec["version"], spec["traffic"], spec["base"]


ONE, TWO = release("1").revision, release("2").revision


def test_a_part_of_the_requests_leaves_the_rest_where_they_were_until_it_is_promoted():
    runtime, notes, asked = Memory(), Notes(), []

    def go(*wanted):
        deploy(
            release(*wanted),
            target=Lanes(),
            runtime=runtime,
            recorder=notes,
            probe=lambda endpoint: asked.append(endpoint.url),
        )

    go("1")
    asked.clear()
    go("2", 20)
    assert shared(runtime) == ("2", 20, ONE)
    assert lanes(runtime) == {"1", "2"}
    # the service's own address may be answered by either of them
    assert asked == [f"http://{TWO}"] * 2
    assert notes.said == [("serving", "1", None)]
    go("2", 60)
    assert shared(runtime) == ("2", 60, ONE)
    go("2")
    assert shared(runtime) == ("2", 100, None)
    assert lanes(runtime) == {"2"}
    assert asked[-1] == "http://service"
    assert notes.said[-1][:2] == ("serving", "2")
    assert previous_release(SERVICE, runtime) == release("1")


def test_a_part_is_taken_back():
    runtime = Memory()
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=Lanes(), runtime=runtime)
    runtime.applied.clear()
    deploy(previous_release(SERVICE, runtime), target=Lanes(), runtime=runtime)
    assert shared(runtime) == ("1", 100, None)
    assert lanes(runtime) == {"1"}
    # tried out without traffic, it would leave all requests to the one that is taken back
    assert set(runtime.applied) == {("1", 100)}


def test_where_what_served_starts_anew_the_part_is_withdrawn_first(target):
    runtime = Memory()
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=target, runtime=runtime)
    runtime.applied.clear()
    deploy(release("1"), target=target, runtime=runtime)
    assert runtime.applied == [("2", 0), ("1", 100)]


def test_another_candidate_takes_the_place_of_the_one_before():
    runtime = Memory()
    for wanted in (release("1"), release("2", 20), release("3", 10)):
        deploy(wanted, target=Lanes(), runtime=runtime)
    assert shared(runtime) == ("3", 10, ONE)
    assert lanes(runtime) == {"1", "3"}


def test_while_another_one_is_tried_out_requests_are_shared_out_as_before():
    runtime, seen = Memory(), []
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=Lanes(), runtime=runtime)

    def look(endpoint):
        seen.append(runtime.objects[SERVICE]["spec"]["others"])

    deploy(release("3"), target=Lanes(), runtime=runtime, probe=look)
    assert seen == [{ONE: 80, TWO: 20}, {}]


def test_several_keep_a_part_each():
    runtime = Memory()
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=Lanes(), runtime=runtime)
    third = replace(release("3"), traffic=Traffic(percent=10, rest={ONE: 70, TWO: 20}))
    deploy(third, target=Lanes(), runtime=runtime)
    assert lanes(runtime) == {"1", "2", "3"}
    spec = runtime.objects[SERVICE]["spec"]
    assert (spec["others"], spec["beside"]) == ({ONE: 70, TWO: 20}, ["1", "2"])
    before = copy.deepcopy(runtime.objects)
    with pytest.raises(InvalidValue, match="beside this one runs"):
        deploy(replace(third, traffic=Traffic(percent=10, rest={"iris-0": 90})), target=Lanes(), runtime=runtime)
    assert runtime.objects == before
    deploy(release("2"), target=Lanes(), runtime=runtime)
    assert (serves(runtime), lanes(runtime)) == ("2", {"2"})


def test_a_promotion_that_fails_shares_out_as_before():
    runtime = Memory()
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=Lanes(), runtime=runtime)

    def slow(endpoint):
        if endpoint.url == "http://service":
            raise DeployError("too slow for all of them")

    with pytest.raises(DeployError, match="too slow for all of them") as failure:
        deploy(release("2"), target=Lanes(), runtime=runtime, probe=slow)
    assert failure.value.restored == TWO
    assert shared(runtime) == ("2", 20, ONE)
    assert lanes(runtime) == {"1", "2"}


@pytest.mark.parametrize("served", [True, False])
def test_a_lane_that_does_not_come_up_is_taken_away(served):
    runtime = Memory(broken={"2": "no"})
    if served:
        deploy(release("1"), target=Lanes(), runtime=runtime)
    with pytest.raises(DeployError):
        deploy(release("2", 20), target=Lanes(), runtime=runtime)
    assert lanes(runtime) == ({"1"} if served else set())
    assert (SERVICE in runtime.objects) == served


def test_copies_of_requests_go_beside_what_serves():
    runtime, notes = Memory(), Notes()
    deploy(release("1"), target=Lanes(), runtime=runtime, recorder=notes)
    shadow = replace(release("2"), traffic=Traffic(percent=0, mirror_percent=10))
    done = deploy(shadow, target=Lanes(), runtime=runtime, recorder=notes)
    assert done.release.traffic == Traffic(percent=0, mirror_percent=10, base=ONE)
    assert lanes(runtime) == {"1", "2"}
    assert current_release(SERVICE, runtime) == release("1")
    assert notes.said == [("serving", "1", None)]
    deploy(release("2"), target=Lanes(), runtime=runtime)
    assert (serves(runtime), lanes(runtime)) == ("2", {"2"})


def test_what_cannot_be_ended_does_not_undo_a_deploy():
    class Keeps(Memory):
        def delete(self, refs):
            raise DeployError("its finalizer holds it")

    runtime, said = Keeps(), []
    for version in ("1", "2"):
        deploy(release(version), target=Lanes(), runtime=runtime, on_progress=said.append)
    assert serves(runtime) == "2"
    assert said[-1] == "a revision that serves no more could not be ended: its finalizer holds it"


def test_what_a_platform_made_of_a_lane_is_left_to_the_platform():
    runtime = Memory()
    deploy(release("1"), target=Lanes(), runtime=runtime)
    labels = {"longshore.dev/revision": ONE}
    metadata = {"name": "made", "labels": labels, "ownerReferences": [{"kind": "Lane", "name": ONE}]}
    made = {"apiVersion": "test/v1", "kind": "Lane", "metadata": metadata, "spec": {"version": "made"}}
    runtime.objects[Ref.of(made)] = made
    deploy(release("2"), target=Lanes(), runtime=runtime)
    assert lanes(runtime) == {"2", "made"}


def test_nothing_is_left_of_a_service_that_is_removed():
    runtime = Memory()
    for wanted in (release("1"), release("2", 20)):
        deploy(wanted, target=Lanes(), runtime=runtime)
    remove(Service(name="iris"), target=Lanes(), runtime=runtime)
    assert runtime.objects == {}


class Guarded(Things):
    """A target whose releases with a port have a second object, a guard."""

    GUARD = Ref("test/v1", "Guard", "iris")

    def __init__(self) -> None:
        super().__init__(previews=False)

    def render(self, release: Release) -> list[Manifest]:
        (thing,) = super().render(release)
        guard = {**thing, "kind": "Guard"}
        return [thing] if release.service.port is None else [thing, guard]

    def objects(self, service: Service) -> list[Ref]:
        return [SERVICE, self.GUARD]


def guarded(version: str) -> Release:
    return replace(release(version), service=Service(name="iris", port=80))


def test_what_a_release_does_not_have_any_more_is_deleted_once_it_has_passed():
    runtime, target, seen = Memory(), Guarded(), []
    deploy(guarded("1"), target=target, runtime=runtime)

    def probe(_endpoint):
        seen.append(target.GUARD in runtime.objects)

    deploy(release("2"), target=target, runtime=runtime, probe=probe)
    assert seen == [True]
    assert set(runtime.objects) == {SERVICE}
    deploy(previous_release(SERVICE, runtime), target=target, runtime=runtime)
    assert set(runtime.objects) == {SERVICE, target.GUARD}


def test_a_failed_release_takes_nothing_and_leaves_nothing_beside_what_serves():
    runtime, target = Memory(broken={"2": "no"}), Guarded()
    deploy(guarded("1"), target=target, runtime=runtime)
    with pytest.raises(DeployError, match="serves as before"):
        deploy(release("2"), target=target, runtime=runtime)
    assert runtime.objects[target.GUARD]["spec"]["version"] == "1"
    deploy(release("1"), target=target, runtime=runtime)
    with pytest.raises(DeployError, match="serves as before"):
        deploy(guarded("2"), target=target, runtime=runtime)
    assert set(runtime.objects) == {SERVICE}


def test_a_guard_that_cannot_be_deleted_fails_the_release():
    class Holds(Memory):
        def delete(self, refs: Sequence[Ref]) -> None:
            if refs:
                raise DeployError(f"{refs[0]} may not be deleted")

    runtime, target = Holds(), Guarded()
    deploy(guarded("1"), target=target, runtime=runtime)
    with pytest.raises(DeployError, match=r"Guard iris may not be deleted.*serves as before"):
        deploy(release("2"), target=target, runtime=runtime)
    assert current_release(SERVICE, runtime) == guarded("1")


def test_objects_of_the_same_name_that_others_made_stay():
    theirs = {"apiVersion": "test/v1", "kind": "Guard", "metadata": {"name": "iris"}, "spec": {}}
    runtime, target = Memory(objects={Guarded.GUARD: theirs}), Guarded()
    deploy(release("1"), target=target, runtime=runtime)
    deploy(release("2"), target=target, runtime=runtime)
    remove(Service(name="iris"), target=target, runtime=runtime)
    assert runtime.objects == {Guarded.GUARD: theirs}


def test_what_a_platform_must_offer_is_looked_for_before_anything_is_applied(target):
    def complaint(servers):
        return None if servers else "no server offers it"

    target.wants = {"Options.requirements": Need("gpu", Selection("test/v1", "Server", "prod"), complaint)}
    runtime = Memory()
    with pytest.raises(InvalidValue, match=r"Options.requirements = 'gpu' is not valid: no server offers it"):
        deploy(release("1"), target=target, runtime=runtime)
    assert runtime.objects == {}
    runtime.objects[Ref("test/v1", "Server", "big")] = {"kind": "Server"}
    deploy(release("1"), target=target, runtime=runtime)
    assert serves(runtime) == "1"
    hidden, said = Memory(hidden={"Server"}), []
    deploy(release("1"), target=target, runtime=hidden, on_progress=said.append)
    assert "the Server objects of the namespace prod may not be looked for" in said[0]


def test_a_revision_is_up_before_it_gets_copies():
    class Mirrors(Things):
        def __init__(self) -> None:
            super().__init__(previews=True)
            self.copies: list[int] = []

        def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
            self.copies.append(release.traffic.mirror_percent)
            return super().endpoint(release, observed)

    runtime, target = Memory(), Mirrors()
    deploy(release("1"), target=target, runtime=runtime)
    target.copies.clear()
    deploy(replace(release("2"), traffic=Traffic(percent=0, mirror_percent=50)), target=target, runtime=runtime)
    assert target.copies == [0, 50]
