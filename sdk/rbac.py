"""The least that a deploying step must be allowed to do in a namespace, as the objects that allow it.

The rules follow from what the targets render and want to see, so that a target that changes changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from longshore.spec import KServeOptions, Service
from longshore.spec.checks import check_dns_label, check_subdomain
from longshore.targets import PLATFORMS, target_of
from longshore.targets.base import MANAGED_BY, Manifest, Target
from longshore.targets.kserve_graph import KServeGraphTarget
from longshore.targets.kserve_llm import KServeLLMTarget

__all__ = ["DEPLOYER", "deployer_objects"]

DEPLOYER: Final = "longshore-deployer"
"""Name of the Role, its binding and, unless another is given, the service account."""

_APPLY: Final = ("get", "list", "watch", "create", "patch", "delete")
_READ: Final = ("get", "list", "watch")
_LEASE: Final = ("get", "create", "update", "delete")


def deployer_objects(
    namespace: str, *, service_account: str | None = None, platforms: Sequence[str] | None = None
) -> list[Manifest]:
    """A Role, its binding and a service account that may deploy to a namespace.

    Args:
        namespace: Where is deployed to.
        service_account: ``NAME`` or ``NAMESPACE/NAME`` of an account that is there already, such as the one that
            Kubeflow runs steps as; None has one made.
        platforms: Whose objects the account shall deploy; None for all.

    Raises:
        InvalidValue: If a name is not valid, or there is no such platform.
    """
    check_dns_label("namespace", namespace)
    account_namespace, _, account = (service_account or DEPLOYER).rpartition("/")
    check_subdomain("service_account", account)
    metadata = {"name": DEPLOYER, "namespace": namespace, "labels": dict(MANAGED_BY)}
    made = [] if service_account is not None else [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": account_namespace or namespace}
    group = "rbac.authorization.k8s.io"
    return [
        *made,
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": _rules(platforms or PLATFORMS)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": DEPLOYER},
            "subjects": [subject],
        },
    ]


def _rules(platforms: Sequence[str]) -> list[dict[str, Any]]:
    verbs: dict[tuple[str, str], tuple[str, ...]] = {
        ("coordination.k8s.io", "leases"): _LEASE,
        ("", "pods/log"): ("get",),
    }
    services = [Service(name="any"), Service(name="any", kserve=KServeOptions(mode="Knative"))]
    for target in (target for platform in platforms for target in _targets(platform)):
        for service in services:
            for child in target.children(service):
                verbs.setdefault(_resource(child.api_version, child.kind), _READ)
            for ref in target.objects(service):
                verbs[_resource(ref.api_version, ref.kind)] = _APPLY
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": list(allowed)}
        for (group, resource), allowed in sorted(verbs.items())
    ]


def _targets(platform: str) -> tuple[Target[Any], ...]:
    """What a platform brings up in a cluster."""
    target = target_of(platform)
    if platform == "kserve":
        return target, KServeGraphTarget(), KServeLLMTarget()
    # what is on this machine no cluster has to allow
    return () if platform == "local" else (target,)


def _resource(api_version: str, kind: str) -> tuple[str, str]:
    """Group and plural of a kind: the kinds that targets use all have the regular one."""
    return api_version.rpartition("/")[0], f"{kind.lower()}s"
