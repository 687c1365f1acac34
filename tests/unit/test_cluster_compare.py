"""When an object need not be written: only if nothing at all would change."""

import copy

import pytest

from longshore.cluster.compare import prepared, unchanged
from longshore.targets.base import APPLIED_ANNOTATION

WANTED = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "iris", "labels": {"team": "a"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "server:1",
                        "env": [],
                        "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}},
                    }
                ],
                "securityContext": {},
            }
        },
    },
}


def live(wanted):
    """What a server makes of it: status, defaults, quantities its own way, nothing empty."""
    made = copy.deepcopy(wanted)
    made["status"] = {"replicas": 2}
    made["metadata"].update(uid="1", resourceVersion="7", generation=3, managedFields=[{}])
    made["spec"]["progressDeadlineSeconds"] = 600
    (container,) = made["spec"]["template"]["spec"]["containers"]
    del container["env"]
    container["imagePullPolicy"] = "IfNotPresent"
    container["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    return made


def test_an_object_is_prepared_with_namespace_label_and_digest():
    manifest = prepared(WANTED, "prod")
    assert manifest["metadata"]["namespace"] == "prod"
    assert manifest["metadata"]["labels"] == {"team": "a", "app.kubernetes.io/managed-by": "longshore"}
    assert len(manifest["metadata"]["annotations"][APPLIED_ANNOTATION]) == 32
    assert "namespace" not in WANTED["metadata"]
    assert prepared(copy.deepcopy(WANTED), "prod") == manifest
    assert "namespace" not in prepared(WANTED, None)["metadata"]


def test_what_a_server_made_of_the_same_object_is_unchanged():
    wanted = prepared(WANTED, "prod")
    assert unchanged(wanted, live(wanted))


def test_a_field_that_is_wanted_no_longer_is_a_change():
    before = prepared({**WANTED, "spec": {**WANTED["spec"], "minReadySeconds": 5}}, "prod")
    assert not unchanged(prepared(WANTED, "prod"), live(before))


CHANGES = {
    "another value": lambda made: made["spec"].update(replicas=3),
    "a value that is gone": lambda made: made["spec"].pop("replicas"),
    "a label that is gone": lambda made: made["metadata"]["labels"].pop("team"),
    "one more container": lambda made: made["spec"]["template"]["spec"]["containers"].append({"name": "other"}),
    "no containers": lambda made: made["spec"]["template"]["spec"].pop("containers"),
    "another quantity": lambda made: made["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].update(
        cpu="2"
    ),
    "being deleted": lambda made: made["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    "never applied by longshore": lambda made: made["metadata"].pop("annotations"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_somebody_changed_is_written_again(what):
    wanted = prepared(WANTED, "prod")
    made = live(wanted)
    CHANGES[what](made)
    assert not unchanged(wanted, made)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1000m", True),
        ("0.5", "500m", True),
        (1, "1", True),
        ("1Gi", "1024Mi", True),
        ("1G", "1000M", True),
        ("1G", "1Gi", False),
        ("128974848", "123Mi", True),
        ("1", "2", False),
        ("abc", "abd", False),
        ("m", "k", False),
        ("", "0", False),
        (True, "1", False),
    ],
)
def test_quantities_are_compared_by_value(one, other, same):
    manifest = prepared({**WANTED, "spec": {"x": one}}, "prod")
    made = copy.deepcopy(manifest)
    made["spec"]["x"] = other
    assert unchanged(manifest, made) is same
