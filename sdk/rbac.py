"""The least that a deploying step must be allowed to do in a namespace, as the objects that allow it.

The rules follow from what the targets render and want to see, so that a target that changes changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from longshore.spec import (
    ROUTERS,
    GraphNode,
    GraphStep,
    InferenceGraph,
    KServeOptions,
    LLMService,
    ModelSource,
    Release,
    Resources,
    Router,
    Scaling,
    SeldonGateway,
    SeldonOptions,
    SeldonV2Explainer,
    SeldonV2Options,
    SeldonV2Pipeline,
    SeldonV2Server,
    SeldonV2Step,
    Service,
    TensorFlowServingOptions,
    TorchServeOptions,
)
from longshore.spec.checks import check_dns_label, check_subdomain
from longshore.targets import PLATFORMS, target_of
from longshore.targets.base import MANAGED_BY, Deployable, Manifest, Target
from longshore.targets.kserve_graph import KServeGraphTarget
from longshore.targets.kserve_llm import KServeLLMTarget

__all__ = ["DEPLOYER", "deployer_objects"]

DEPLOYER: Final = "longshore-deployer"
"""Name of the Role, its binding and, unless another is given, the service account."""

_APPLY: Final = ("get", "list", "watch", "create", "patch", "delete")
_READ: Final = ("get", "list", "watch")
_LEASE: Final = ("get", "list", "create", "update", "delete")

# one of each way to serve
_MODEL: Final = ModelSource(uri="s3://any/model", format="sklearn", name="any", version="1")
_NODE: Final = GraphNode(kind="Sequence", steps=[GraphStep(service="any")])
_SERVICES: Final = (
    Service(name="any"),
    Service(name="any", kserve=KServeOptions(mode="Knative")),
    Service(name="any", resources=Resources(cpu="1"), scaling=Scaling(max_replicas=2)),
    *(
        Service(name="any", router=Router(kind=kind, gateway="any" if kind == "gateway-api" else None))
        for kind in ROUTERS
    ),
)

_SELDON: Final = (
    Service(name="any"),
    Service(
        name="any",
        resources=Resources(cpu="1"),
        scaling=Scaling(max_replicas=2),
        seldon=SeldonOptions(gateway=SeldonGateway()),
    ),
)

_SELDON_V2: Final = (
    Service(name="any"),
    Service(
        name="any",
        seldon_v2=SeldonV2Options(
            own_server=SeldonV2Server(),
            explainer=SeldonV2Explainer(type="any", uri="s3://any/explainer"),
            pipeline=SeldonV2Pipeline(steps=[SeldonV2Step(name="model")]),
        ),
    ),
)

_TORCHSERVE: Final = tuple(
    replace(service, torchserve=TorchServeOptions(anonymous=True, plaintext=True, pod_monitor=True))
    for service in _SERVICES
)
_TENSORFLOW_SERVING: Final = tuple(
    replace(service, tfserving=TensorFlowServingOptions(pod_monitor=True)) for service in _SERVICES
)
_PLATFORM_SERVICES: Final = {
    "seldon": _SELDON,
    "seldon-v2": _SELDON_V2,
    "torchserve": _TORCHSERVE,
    "tensorflow-serving": _TENSORFLOW_SERVING,
}
_PLATFORM_FORMATS: Final = {"torchserve": "torchserve", "tensorflow-serving": "tensorflow"}


def deployer_objects(
    namespace: str,
    *,
    service_account: str | None = None,
    platforms: Sequence[str] | None = None,
    secrets: Sequence[str] = (),
) -> list[Manifest]:
    """A Role, its binding and a service account that may deploy to a namespace.

    Args:
        namespace: Where is deployed to.
        service_account: ``NAME`` or ``NAMESPACE/NAME`` of an account that is there already, such as the one that
            Kubeflow runs steps as; None has one made.
        platforms: Whose objects the account shall deploy; None for all.
        secrets: Names of Secrets that a service may name. A deploy that may look for them refuses a service that names
            one that is not there; without it, its pods say so.

    Raises:
        InvalidValue: If a name is not valid, or there is no such platform.
    """
    check_dns_label("namespace", namespace)
    account_namespace, _, account = (service_account or DEPLOYER).rpartition("/")
    check_subdomain("service_account", account)
    for index, secret in enumerate(secrets):
        check_subdomain(f"secrets[{index}]", secret)
    metadata = {"name": DEPLOYER, "namespace": namespace, "labels": dict(MANAGED_BY)}
    made = [] if service_account is not None else [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": account_namespace or namespace}
    group = "rbac.authorization.k8s.io"
    rules = _rules(platforms or PLATFORMS)
    if secrets:
        # whoever may start a pod can read any Secret of its namespace by it; the role itself opens no other
        rules.append({"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(secrets), "verbs": ["get"]})
    return [
        *made,
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
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
    # what is on this machine no cluster has to allow
    for platform in (platform for platform in platforms if platform != "local"):
        for target, wanted in _ways(platform):
            for child in target.children(wanted):
                verbs.setdefault(_resource(child.api_version, child.kind), _READ)
            for manifest in target.render(wanted):
                verbs[_resource(manifest["apiVersion"], manifest["kind"])] = _APPLY
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": list(allowed)}
        for (group, resource), allowed in sorted(verbs.items())
    ]


def _ways(platform: str) -> Iterator[tuple[Target[Any], Deployable]]:
    """What a platform brings up in a cluster, one of each kind."""
    model = replace(_MODEL, format=_PLATFORM_FORMATS.get(platform, _MODEL.format))
    for service in _PLATFORM_SERVICES.get(platform, _SERVICES):
        yield target_of(platform, routed=service.router is not None), Release(service=service, model=model)
    if platform == "kserve":
        for service in _SERVICES[:2]:
            yield KServeGraphTarget(), InferenceGraph(service=service, nodes={"root": _NODE})
        yield KServeLLMTarget(), LLMService(service=_SERVICES[0], uri="hf://any/model")


def _resource(api_version: str, kind: str) -> tuple[str, str]:
    """Group and plural of a kind: the kinds that targets use all have the regular one of English."""
    name = kind.lower()
    return api_version.rpartition("/")[0], f"{name[:-1]}ies" if name.endswith("cy") else f"{name}s"
