"""What an API server's refusals mean to a person: pure functions from its answer to an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longshore.errors import ClusterError, LongshoreError

__all__ = ["PRODUCTS", "Request", "not_installed", "refusal", "temporary", "together"]

PRODUCTS: Final[Mapping[str, str]] = {
    "serving.kserve.io": "KServe",
    "machinelearning.seldon.io": "Seldon Core 1",
    "mlops.seldon.io": "Seldon Core 2",
    "serving.knative.dev": "Knative Serving",
    "networking.istio.io": "Istio",
    "gateway.networking.k8s.io": "the Gateway API",
    "monitoring.coreos.com": "the Prometheus Operator",
    "keda.sh": "KEDA",
}
"""The product that brings the resources of an API group."""

_RBAC: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)"| at the cluster scope)?'
)
_WEBHOOK: Final = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request(?: without explanation)?:? ?')
_FIELD_MANAGER: Final = re.compile(r'conflict with "(?P<manager>[^"]*)"')
_TYPED: Final = ("field not declared in schema", "failed to create typed", "unable to create typed", "errors:\n")
_VERBS: Final = {"PATCH": "applied", "POST": "created", "DELETE": "deleted", "GET": "read"}
_SHOWN: Final = 5
_TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Request:
    """What was asked of which cluster.

    Args:
        method: HTTP method.
        subject: The object, such as ``Deployment prod/iris``, or what was listed.
        cluster: The cluster as its user calls it: name of the context, or address.
    """

    method: str
    subject: str
    cluster: str

    @property
    def failed(self) -> str:
        """Start of a sentence on its failure."""
        return f"{self.subject} could not be {_VERBS.get(self.method, 'read')}"


def temporary(status: int, answer: Mapping[str, Any]) -> bool:
    """Whether the same request may succeed in a moment."""
    message = str(answer.get("message", ""))
    # an API server says 500 of a schema error in server-side apply too: asking again does not mend it
    return status in _TEMPORARY and not any(text in message for text in _TYPED)


def refusal(status: int, answer: Mapping[str, Any], request: Request) -> ClusterError:
    """The error for an answer of 400 or above.

    Args:
        status: HTTP status.
        answer: The ``Status`` object that the server sent; only ``message`` if it sent something else.
        request: What was asked.
    """
    details = answer.get("details") or {}
    message = str(answer.get("message") or f"HTTP status {status}")
    reason = str(answer.get("reason") or status)
    if status == 401:
        return ClusterError(
            f"{request.failed}: the cluster {request.cluster} does not accept these credentials (expired or revoked). "
            "Log in again, or renew the token in the kubeconfig",
            "Unauthorized",
        )
    text = (
        _namespace(status, details)
        or _webhook(message)
        or (_forbidden(message) if status == 403 else None)
        or (_conflict(details) if status == 409 else None)
        or (_invalid(details) if status == 422 else None)
        or message
    )
    return ClusterError(f"{request.failed}: {text}", reason)


def not_installed(api_version: str, kind: str, cluster: str) -> ClusterError:
    """The error for a kind that a cluster does not know."""
    group = api_version.rpartition("/")[0]
    product = PRODUCTS.get(group)
    todo = f"install {product} on it" if product else "install what brings it, or correct apiVersion and kind"
    return ClusterError(f"the cluster {cluster} does not know {kind} ({api_version}): {todo}", "NotInstalled")


def together(refused: Sequence[LongshoreError], asked: int) -> LongshoreError:
    """One error for all that was refused.

    Args:
        refused: The refusals, at least one.
        asked: How much was asked for.
    """
    if len(refused) == 1:
        return refused[0]
    reason = refused[0].reason if isinstance(refused[0], ClusterError) else "Refused"
    text = "; ".join(str(error) for error in refused[:_SHOWN])
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return ClusterError(f"{len(refused)} of {asked} objects were refused: {text}{more}", reason)


def _namespace(status: int, details: Mapping[str, Any]) -> str | None:
    if status == 404 and details.get("kind") == "namespaces":
        name = details.get("name")
        return f"the namespace {name} does not exist. Create it: kubectl create namespace {name}"
    if any(cause.get("reason") == "NamespaceTerminating" for cause in details.get("causes") or ()):
        return (
            "its namespace is being deleted, and nothing new is accepted there. "
            "Wait until it is gone and create it again, or use another one"
        )
    return None


def _webhook(message: str) -> str | None:
    denied = _WEBHOOK.search(message)
    if denied is not None:
        words = message[denied.end() :].strip() or "it gave no reason"
        return f"the admission webhook {denied['name']} refused it: {words}"
    if "failed calling webhook" in message:
        return f"an admission webhook does not answer; is its controller running? The server says: {message}"
    return None


def _forbidden(message: str) -> str | None:
    denied = _RBAC.search(message)
    if denied is None:
        return None
    resource = f"{denied['resource']}.{denied['group']}" if denied["group"] else denied["resource"]
    where = f"in namespace {denied['namespace']}" if denied["namespace"] else "in the cluster"
    return (
        f"{denied['user']} may not {denied['verb']} {resource} {where}. Have a Role bound to it that allows this: "
        "manifests/rbac/deployer.yaml has all that longshore asks for ('longshore rbac' prints it)"
    )


def _conflict(details: Mapping[str, Any]) -> str | None:
    owners = [
        (cause.get("field", ""), match["manager"])
        for cause in details.get("causes") or ()
        if cause.get("reason") == "FieldManagerConflict" and (match := _FIELD_MANAGER.search(cause.get("message", "")))
    ]
    if not owners:
        return None
    fields = ", ".join(f"{field} belongs to {manager!r}" for field, manager in owners)
    return f"{fields}. Let its owner give the field up, or deploy with force=True to take it over"


def _invalid(details: Mapping[str, Any]) -> str | None:
    causes = [cause for cause in details.get("causes") or () if cause.get("field")]
    return "; ".join(f"{cause['field']}: {cause.get('message', 'not valid')}" for cause in causes) or None
