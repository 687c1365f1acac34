"""Whose a number of replicas is, read from the fields that an API server keeps of its managers."""

import pytest

from longshore.cluster.replicas import KEEPER, kept, least, owners, scaled, takeable
from longshore.targets.base import Ref

MANAGER = {"manager": "longshore", "operation": "Apply"}
KEPT = {"manager": KEEPER, "operation": "Apply"}
AUTOSCALER = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}
PERSON = {"manager": "kubectl", "operation": "Update", "subresource": "scale"}


def deployment(replicas: int, *managers: dict) -> dict:
    fields = {"fieldsV1": {"f:spec": {"f:replicas": {}}}}
    status = {
        "manager": "kube-controller-manager",
        "subresource": "status",
        "fieldsV1": {"f:status": {"f:replicas": {}}},
    }
    metadata = {
        "name": "iris",
        "namespace": "prod",
        "uid": "1",
        "managedFields": [status, *({**manager, **fields} for manager in managers)],
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def test_the_owners_of_the_number_are_not_those_of_the_status():
    assert owners(deployment(1)) == set()
    held = owners(deployment(1, MANAGER, AUTOSCALER))
    assert held == {"longshore", "kube-controller-manager/scale"}


@pytest.mark.parametrize(
    ("managers", "replicas", "number"),
    [
        ((), 1, 2),
        ((), 5, 5),
        ((MANAGER,), 4, 4),
        ((MANAGER,), 1, 2),
        ((MANAGER, AUTOSCALER), 4, 4),
        ((KEPT,), 4, None),
        ((KEPT,), 1, 2),
        ((AUTOSCALER,), 4, None),
        ((PERSON,), 4, None),
    ],
)
def test_a_number_is_handed_over_where_nobody_else_would_hold_it(managers, replicas, number):
    assert kept(deployment(replicas, *managers), 2) == number


@pytest.mark.parametrize(
    ("managers", "ours"),
    [
        ((), False),
        ((MANAGER,), False),
        ((KEPT,), True),
        ((MANAGER, KEPT), True),
        ((AUTOSCALER,), True),
        ((PERSON,), False),
        ((AUTOSCALER, PERSON), False),
    ],
)
def test_a_number_is_taken_back_from_an_autoscaler_and_from_nobody_else(managers, ours):
    assert takeable(deployment(3, *managers)) is ours


def test_what_the_keeper_applies_is_a_number_and_nothing_else():
    assert least(deployment(3, MANAGER), 5) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris", "namespace": "prod"},
        "spec": {"replicas": 5},
    }


def test_what_is_scaled_is_found_by_its_whole_name():
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "iris"}
    given = {"metadata": {"name": "any", "namespace": "prod"}, "spec": {"scaleTargetRef": target, "minReplicas": 2}}
    plain = {"metadata": {"name": "any", "namespace": "dev"}, "spec": {"scaleTargetRef": target}}
    assert scaled([given, plain]) == {
        Ref("apps/v1", "Deployment", "iris", "prod"): 2,
        Ref("apps/v1", "Deployment", "iris", "dev"): 1,
    }
