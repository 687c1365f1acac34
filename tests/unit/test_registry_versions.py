import pytest

from longshore.errors import InvalidValue, RegistryError
from longshore.registry.versions import (
    DeploymentState,
    RegisteredVersion,
    deployment_tags,
    registration_tags,
    superseded_state,
    version_from,
)
from longshore.spec import ModelSource

DIGEST = "sha256:" + "a" * 64


def model(**changes) -> ModelSource:
    return ModelSource(**{"uri": "/tmp/m", "format": "sklearn", "name": "iris", "digest": DIGEST, **changes})


def read(tags, **changes) -> RegisteredVersion:
    return version_from(**{"name": "iris", "version": "3", "source": "/runs/1/model", "tags": tags, **changes})


def test_what_is_registered_is_read_back():
    tags = registration_tags(model(), metrics={"accuracy": 0.1 + 0.2, "rmse": float("inf")}, data_digest="d", run="r1")
    assert tags["longshore.data_digest"] == "d"
    assert tags["longshore.run"] == "r1"
    version = read(tags, aliases=["champion", "blue"])
    assert version.metrics == {"accuracy": 0.1 + 0.2, "rmse": float("inf")}
    assert version.aliases == ("blue", "champion")
    assert version.source == model(uri="/runs/1/model", version="3")


def test_what_is_not_known_gets_no_tag():
    tags = registration_tags(model(digest=None), metrics={}, data_digest="", run=None)
    assert tags == {"longshore.format": "sklearn"}


def test_the_durable_place_is_preferred_to_the_source():
    assert read({"longshore.uri": "s3://models/iris/3"}).uri == "s3://models/iris/3"
    assert read({}).uri == "/runs/1/model"


def test_a_state_is_read_back_for_each_service():
    first = DeploymentState(state="serving", revision="a-1", endpoint="http://127.0.0.1:1", time="2026-01-01T00:00:00")
    second = DeploymentState(state="failed", revision="b-1", reason="no\nluck: 5.3")
    tags = deployment_tags("a", first) | deployment_tags("b", second)
    assert tags["longshore.deployment.a.state"] == "serving"
    assert dict(read(tags).deployments) == {"a": first, "b": second}


def test_a_new_state_overwrites_all_of_the_old_one():
    failed = DeploymentState(state="failed", revision="a-1", reason="broken")
    serving = DeploymentState(state="serving", revision="a-2", endpoint="http://x")
    assert deployment_tags("a", failed).keys() == deployment_tags("a", serving).keys()
    assert deployment_tags("a", serving)["longshore.deployment.a.reason"] == ""


def test_the_time_is_utc_to_the_second():
    assert DeploymentState(state="serving", revision="a").time[19:] == "+00:00"


@pytest.mark.parametrize(("length", "kept"), [(499, 499), (500, 500), (501, 500), (90_000, 500)])
def test_a_reason_is_cut_to_500_characters(length, kept):
    assert len(DeploymentState(state="failed", revision="a", reason="x" * length).reason) == kept


def test_tags_that_cannot_be_read_are_passed_over():
    version = read(
        {
            "longshore.metric.accuracy": "high",
            "longshore.metric.r2": "0.5",
            "longshore.deployment.a.state": "vanished",
            "longshore.deployment.b.revision": "b-1",
            "longshore.deployment.c.state": "serving",
            "longshore.deployment.c.colour": "blue",
            "owner": "me",
        }
    )
    assert version.metrics == {"r2": 0.5}
    assert dict(version.deployments) == {"c": DeploymentState(state="serving", revision="", time="")}


def test_a_version_of_something_else_cannot_be_deployed():
    with pytest.raises(
        RegistryError, match=r"version 3 of model 'iris' has no tag longshore.format.*register it again"
    ):
        _ = read({}).source


def test_values_are_checked_and_frozen():
    with pytest.raises(InvalidValue, match="rolled-back"):
        DeploymentState(state="gone", revision="a")
    with pytest.raises(InvalidValue, match="service"):
        deployment_tags("No.Service", DeploymentState(state="serving", revision="a"))
    with pytest.raises(TypeError):
        read({}).metrics["accuracy"] = 1.0


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        (("iris", "9"), ("iris", "10"), "replaced"),
        (("iris", "10"), ("iris", "9"), "rolled-back"),
        (("iris", "10"), ("penguins", "9"), "replaced"),
        (("iris", "10"), ("iris", None), "replaced"),
    ],
)
def test_going_back_to_a_lower_number_is_a_rollback(old, new, state):
    before = RegisteredVersion(name=old[0], version=old[1], uri="/m")
    assert superseded_state(before, model(name=new[0], version=new[1])) == state
