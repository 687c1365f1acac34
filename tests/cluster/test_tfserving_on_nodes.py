"""The platform ``tensorflow-serving`` in real pods: loader, watcher, probes, and what is told of a failure.

And the same server under KServe.

In the server's image is a stand-in, since no registry here has its binary; the rules by which it starts and ends are
the real one's. Pods are admitted only where they keep to the profile ``restricted``.
"""

from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.load import Load

from longshore.cluster import ClusterRuntime
from longshore.errors import DeployError
from longshore.packaging.model import directory_digest
from longshore.release import deploy
from longshore.spec import KServeOptions, ModelSource, Release, Resources, Service, Traffic
from longshore.storage import copy_tree
from longshore.targets.kserve import KServeTarget
from longshore.targets.tfserving import SERVER_IMAGE, TensorFlowServingTarget
from longshore.tfserving import smoke_test


@pytest.fixture
def service(place) -> Service:
    return Service(name="flowers", namespace=place, resources=Resources(cpu="20m", memory="400Mi"), secrets=["bucket"])


@pytest.fixture
def stored(bucket, tmp_path):
    """Versions in the bucket, each of which adds its own number to what it is asked."""

    def make(version, content=None):
        folder = tmp_path / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(str(version) if content is None else content)
        (folder / "variables" / "variables.index").write_text("any")
        uri = copy_tree(folder, f"{bucket}/{tmp_path.name}/half/{version}")
        digest = directory_digest(folder)
        return ModelSource(uri=uri, format="tensorflow", name="half", version=str(version), digest=digest)

    return make


@pytest.fixture
def bring_up(session, service):
    def run(model, percent=100):
        release = Release(service=service, model=model, traffic=Traffic(percent=percent))
        runtime = ClusterRuntime(session)
        options = {"probe": smoke_test(None), "timeout_seconds": 120, "patience_seconds": 3}
        return deploy(release, target=TensorFlowServingTarget(), runtime=runtime, **options)

    return run


def test_versions_side_by_side_and_a_label_that_moves_under_load(real_cluster, service, stored, bring_up, answer):
    first = bring_up(stored(1))
    assert answer(first.endpoint, {"x": 10.0}) == 11
    url = f"http://flowers.{service.namespace}.svc:8501/v1/models/half/labels/stable:predict"
    with Load(real_cluster, service.namespace, url, {"x": 0.0}) as load:
        second = stored(2)
        canary = bring_up(second, percent=0)
        assert answer(canary.endpoint, {"x": 10.0}) == 11
        assert answer(canary.endpoint.at_revision(), {"x": 10.0}) == 12
        moved = bring_up(second)
        done = len(load.read())
        eventually(lambda: len(load.read()) > done + 20, "more answers")
    assert load.failures == []
    assert load.answers == {1, 2}
    assert answer(moved.endpoint, {"x": 10.0}) == 12


def test_what_does_not_come_up_is_told_in_the_words_of_who_knows(stored, service, bring_up, answer):
    good = stored(1)
    first = bring_up(good)
    # beside one that loads the server starts, and only its status says so
    with pytest.raises(
        DeployError, match="TensorFlow Serving cannot load half, version 2: DATA_LOSS: Can't parse"
    ) as no:
        bring_up(stored(2, "broken"), percent=0)
    assert no.value.restored == first.release.revision
    # of another content than was recorded
    with pytest.raises(DeployError, match="(?s)container loader crashes again and again.*sha256") as no:
        bring_up(replace(stored(4), digest=good.digest), percent=0)
    assert no.value.restored == first.release.revision
    assert answer(first.endpoint, {"x": 10.0}) == 11


def test_kserve_fetches_the_one_version_to_where_the_server_looks(kserve_place, service, session, stored, answer):
    options = KServeOptions(storage_secret="kserve-bucket")
    service = replace(service, namespace=kserve_place, secrets=(), image=SERVER_IMAGE, kserve=options)

    def run(model):
        release = Release(service=service, model=model)
        given = {"probe": smoke_test(None), "timeout_seconds": 120, "patience_seconds": 3}
        return deploy(release, target=KServeTarget(), runtime=ClusterRuntime(session), **given)

    first = run(stored(3))
    assert answer(first.endpoint, {"x": 10.0}) == 13
    # the folder of both has a newer one
    second = run(stored(2))
    assert answer(second.endpoint, {"x": 10.0}) == 12
