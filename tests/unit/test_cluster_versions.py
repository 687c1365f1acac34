"""What a cluster's schema tells of the versions of its products."""

import pytest

from longshore.cluster.versions import _version


def schema(**spec):
    fields = {name: {"properties": {field: {} for field in fields}} for name, fields in spec.items()}
    return {"properties": {"spec": {"properties": fields}}}


@pytest.mark.parametrize(
    ("given", "version"),
    [
        (schema(predictor=["model"]), (0, 15)),
        (schema(predictor=["model", "storageUris"]), (0, 16)),
        (schema(predictor=["model", "storageUris"], canary=[]), (0, 20)),
        # the minimal CRDs
        ({"properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True}}}, None),
        ({}, None),
    ],
)
def test_kserve_is_known_by_its_fields(given, version):
    assert _version(given) == version
