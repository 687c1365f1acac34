"""What API servers answered (their own words, of Kubernetes 1.34), and what a person is told."""

import pytest

from longshore.cluster.refusals import Request, not_installed, refusal, temporary

APPLIED = Request("PATCH", "Deployment prod/iris", "staging")


def forbidden(message: str) -> dict:
    return {"reason": "Forbidden", "message": message}


REFUSALS = {
    "rbac": (
        403,
        forbidden(
            'deployments.apps "iris" is forbidden: User "system:serviceaccount:prod:runner" cannot patch resource '
            '"deployments" in API group "apps" in the namespace "prod"'
        ),
        "system:serviceaccount:prod:runner may not patch deployments.apps in namespace prod. Have a Role bound to it",
    ),
    "rbac of the core group, in the cluster": (
        403,
        forbidden('nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope'),
        "jane may not list nodes in the cluster.",
    ),
    "namespace missing": (
        404,
        {
            "reason": "NotFound",
            "message": 'namespaces "prod" not found',
            "details": {"kind": "namespaces", "name": "prod"},
        },
        "the namespace prod does not exist. Create it: kubectl create namespace prod",
    ),
    "namespace ending": (
        403,
        {
            **forbidden('deployments.apps "iris" is forbidden: unable to create new content in namespace prod'),
            "details": {
                "causes": [{"reason": "NamespaceTerminating", "message": "namespace prod is being terminated"}]
            },
        },
        "its namespace is being deleted",
    ),
    "webhook": (
        403,
        forbidden('admission webhook "policy.example.com" denied the request: image must come from our registry'),
        "the admission webhook policy.example.com refused it: image must come from our registry",
    ),
    "webhook without words": (
        400,
        {"reason": "BadRequest", "message": 'admission webhook "a.b" denied the request without explanation'},
        "the admission webhook a.b refused it: it gave no reason",
    ),
    "webhook that is down": (
        500,
        {
            "reason": "InternalError",
            "message": 'Internal error occurred: failed calling webhook "a.b": dial tcp: connection refused',
        },
        "an admission webhook does not answer; is its controller running?",
    ),
    "quota": (
        403,
        forbidden('pods "iris" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'),
        "exceeded quota: small, requested: pods=1",
    ),
    "conflict": (
        409,
        {
            "reason": "Conflict",
            "message": "Apply failed with 1 conflict",
            "details": {
                "causes": [
                    {
                        "reason": "FieldManagerConflict",
                        "message": 'conflict with "hpa" using apps/v1',
                        "field": ".spec.replicas",
                    }
                ]
            },
        },
        ".spec.replicas belongs to 'hpa'. Let its owner give the field up, or deploy with force=True",
    ),
    "conflict of versions": (
        409,
        {"reason": "Conflict", "message": "the object has been modified"},
        "could not be applied: the object has been modified",
    ),
    "invalid": (
        422,
        {
            "reason": "Invalid",
            "message": "Deployment is invalid",
            "details": {
                "causes": [
                    {"field": "spec.replicas", "message": "Invalid value: -1"},
                    {"field": "spec.selector", "message": "Required value"},
                ]
            },
        },
        "could not be applied: spec.replicas: Invalid value: -1; spec.selector: Required value",
    ),
    "schema": (
        500,
        {"message": "failed to create typed patch object: .spec.replica: field not declared in schema"},
        ".spec.replica: field not declared in schema",
    ),
    "expired": (
        401,
        {"reason": "Unauthorized", "message": "Unauthorized"},
        "the cluster staging does not accept these",
    ),
    "no words": (418, {}, "could not be applied: HTTP status 418"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_is_told_with_what_to_do(what):
    status, answer, words = REFUSALS[what]
    error = refusal(status, answer, APPLIED)
    assert str(error).startswith("Deployment prod/iris could not be applied: ")
    assert words in str(error)
    assert error.reason == answer.get("reason", str(status))


@pytest.mark.parametrize(
    ("status", "message", "again"),
    [
        (429, "too many requests", True),
        (503, "etcd leader changed", True),
        (504, "Timeout: Too large resource version", True),
        (500, "etcdserver: request timed out", True),
        (500, ".spec.x: field not declared in schema", False),
        (403, "no", False),
        (404, "no", False),
        (409, "no", False),
        (422, "no", False),
    ],
)
def test_only_what_may_pass_is_asked_again(status, message, again):
    assert temporary(status, {"message": message}) is again


@pytest.mark.parametrize(
    ("api_version", "product"),
    [
        ("serving.kserve.io/v1beta1", "install KServe on it"),
        ("machinelearning.seldon.io/v1", "install Seldon Core 1 on it"),
        ("mlops.seldon.io/v1alpha1", "install Seldon Core 2 on it"),
        ("gateway.networking.k8s.io/v1", "install the Gateway API on it"),
        ("example.com/v1", "install what brings it"),
    ],
)
def test_a_kind_that_is_not_there_names_its_product(api_version, product):
    error = not_installed(api_version, "Thing", "staging")
    assert str(error).startswith(f"the cluster staging does not know Thing ({api_version}): {product}")
    assert error.reason == "NotInstalled"
