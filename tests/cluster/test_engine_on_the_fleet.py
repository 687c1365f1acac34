"""The engine and the platform ``rest`` on a real API server with fake nodes: what others have their hands in."""

from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.fleet import READY_DELAY

from longshore.cluster import ClusterRuntime
from longshore.errors import DeployError
from longshore.release import current_release, deploy, previous_release
from longshore.spec import ModelSource, Release, Scaling, Service
from longshore.targets.base import Ref
from longshore.targets.rest import RestTarget

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")


@pytest.fixture
def release(namespace) -> Release:
    return Release(service=Service(name="iris", namespace=namespace), model=MODEL)


def test_a_number_of_replicas_that_somebody_else_set_is_not_taken_back_unasked(runtime, fleet, release):
    first = deploy(release, target=RestTarget(), runtime=runtime).release
    web = Ref("apps/v1", "Deployment", "iris", release.service.namespace)
    path = fleet.path(RestTarget().render(release)[0])
    fleet.request("PATCH", f"{path}/scale", {"spec": {"replicas": 3}}, kind="application/merge-patch+json")
    second = replace(release, model=replace(MODEL, uri="s3://models/iris/2"))
    with pytest.raises(DeployError) as failure:
        deploy(second, target=RestTarget(), runtime=runtime)
    assert ".spec.replicas belongs to" in str(failure.value)
    assert f"Revision {first.revision} serves as before" in str(failure.value)
    assert runtime.get(web)["spec"]["replicas"] == 3
    done = deploy(second, target=RestTarget(), runtime=ClusterRuntime(runtime.session, force=True))
    assert done.previous == first
    assert runtime.get(web)["spec"]["replicas"] == 1


def test_what_served_before_is_found_on_the_objects_themselves(runtime, fleet, release):
    web = Ref("apps/v1", "Deployment", "iris", release.service.namespace)
    assert current_release(web, runtime) is None
    releases = [replace(release, model=replace(MODEL, uri=f"s3://models/iris/{number}")) for number in range(3)]
    for each in releases:
        deploy(each, target=RestTarget(), runtime=runtime)
    assert current_release(web, runtime) == releases[2]
    assert previous_release(web, runtime) == releases[1]


class Slow(RestTarget):
    """Pods that take a minute to become ready."""

    def render(self, release: Release) -> list:
        deployment, *others = super().render(release)
        deployment["spec"]["template"]["metadata"]["annotations"] = {READY_DELAY: "60s"}
        return [deployment, *others]


def test_somebody_who_deploys_at_the_same_time_is_seen(runtime, fleet, release):
    deploy(release, target=RestTarget(), runtime=runtime)
    other = RestTarget().render(replace(release, model=replace(MODEL, uri="s3://models/iris/9")))[0]
    slow = replace(release, model=replace(MODEL, uri="s3://models/iris/2"))

    def interfere(_: str) -> None:
        fleet.apply(other)

    with pytest.raises(DeployError, match="somebody else changed the Deployment"):
        deploy(slow, target=Slow(), runtime=runtime, on_progress=interfere, timeout_seconds=20)


def test_many_replicas_are_awaited_all(runtime, fleet, release):
    many = replace(release, service=replace(release.service, scaling=Scaling(min_replicas=20)))
    deploy(many, target=RestTarget(), runtime=runtime)
    web = runtime.get(Ref("apps/v1", "Deployment", "iris", release.service.namespace))
    assert web["status"]["availableReplicas"] == 20
    few = replace(release, service=replace(release.service, scaling=Scaling(min_replicas=2)))
    deploy(few, target=RestTarget(), runtime=runtime)
    pods = f"/api/v1/namespaces/{release.service.namespace}/pods"
    eventually(lambda: len(fleet.get(pods)["items"]) == 2, "the end of the others")
