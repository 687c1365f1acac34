"""Fake nodes: kwok writes the status that a kubelet would write.

A pod is Ready at once, unless it is annotated: with :data:`READY_DELAY`, a duration such as ``5s``, after that time;
with :data:`FAIL` it never is, in one of the ways of :data:`FAILURES`. Annotations of an InferenceService's predictor
reach its pods. A pod with the annotation ``FAIL=held`` waits until that is taken away.

Nothing runs in a pod, but what is forwarded to one through the API server can go to a process of this machine:
:func:`forward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.builds import built, module_folder
from harness.cluster import Cluster, eventually
from harness.definitions import is_served
from harness.keeper import Keeper
from harness.plane import Plane
from harness.system import free_port
from harness.webhooks import documents

__all__ = ["FAIL", "FAILURES", "HELD", "READY_DELAY", "forward", "start_fleet"]

READY_DELAY = "test.longshore.dev/ready-delay"
FAIL = "test.longshore.dev/fail"
HELD = "held"

_SIZE = {"cpu": "100k", "memory": "1Pi", "ephemeral-storage": "1Pi", "pods": "100k"}
_FAKE = ("kwok.x-k8s.io/node", "fake")
# well below the time after which the plane holds a node for lost
_LEASE_SECONDS = 8

_RAN = """\
  restartCount: 3
  lastState:
    terminated:
      exitCode: 1
      reason: Error
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
      message: %s"""
_BACK_OFF = (
    'printf "back-off 40s restarting failed container=%s pod=%s_%s(%s)" '
    ".name $pod.metadata.name $pod.metadata.namespace $pod.metadata.uid"
)
_NO_IMAGE = (
    'printf "Back-off pulling image %q: ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack '
    'image %q: failed to resolve reference %q: %s: not found" .image .image .image .image'
)
_NO_SECRET = 'printf "secret %q not found" "nope"'
_TRACEBACK = (
    'Traceback (most recent call last):\\n  File \\"/app/serve.py\\", line 12, in <module>\\n'
    "    model = load()\\nValueError: bad model\\n"
)
_COMPLETED = """\
  ready: true
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}"""
_RUNNING = """\
  ready: false
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}"""
_NOT_FETCHED = "RuntimeError: Failed to fetch model. No model found in s3://models/missing\\n"


@dataclass(frozen=True)
class _Failure:
    """How a pod fails.

    Args:
        containers: Lines of the status of each container.
        init_containers: Lines of the status of each init container.
        phase: Phase of the pod.
    """

    containers: str
    init_containers: str = _COMPLETED
    phase: str = "Pending"

    @property
    def initialized(self) -> bool:
        return self.init_containers == _COMPLETED


def _waiting(reason: str, message: str = "", *, ran: str | None = None) -> str:
    """Status of a container that waits; ``message`` is an expression of kwok's, ``ran`` what it said before it died."""
    lines = ["  ready: false", "  started: false", _RAN % f'"{ran}"' if ran else "  restartCount: 0"]
    lines += ["  state:", "    waiting:", f"      reason: {reason}"]
    if message:
        lines.append(f"      message: {{{{ {message} | Quote }}}}")
    return "\n".join(lines)


FAILURES = {
    "image": _Failure(_waiting("ImagePullBackOff", _NO_IMAGE)),
    "crash": _Failure(_waiting("CrashLoopBackOff", _BACK_OFF, ran=_TRACEBACK), phase="Running"),
    "init": _Failure(_waiting("PodInitializing"), _waiting("CrashLoopBackOff", _BACK_OFF, ran=_NOT_FETCHED)),
    "unready": _Failure(_RUNNING, phase="Running"),
    "config": _Failure(_waiting("CreateContainerConfigError", _NO_SECRET)),
}
"""By value of the annotation: no image, a crash loop, a crash loop of the init container, running but never ready, a
Secret that is not there. The words are the kubelet's."""


def start_fleet(keeper: Keeper, plane: Plane, cluster: Cluster, nodes: int = 2) -> list[str]:
    """Start kwok with fake nodes and wait until pods can be scheduled on them; returns the nodes' names."""
    stages = keeper.folder / "stages.yaml"
    stages.write_text(yaml.safe_dump_all(_stages(), sort_keys=False))
    for document in documents(_module() / "kustomize/crd/bases/kwok.x-k8s.io_portforwards.yaml"):
        cluster.apply(document)
        eventually(lambda document=document: is_served(cluster, document), "the kind of forwards")  # type: ignore[misc]
    port = free_port()
    # the API server asks it as it asks a kubelet
    certificate, key = plane.authority.issue("kwok", "kwok", hosts=["127.0.0.1"])
    keeper.spawn(
        "kwok",
        [
            built("kwok") / "kwok",
            f"--kubeconfig={plane.kubeconfig('kwok')}",
            f"--config={stages}",
            f"--manage-nodes-with-annotation-selector={'='.join(_FAKE)}",
            f"--server-address=127.0.0.1:{port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--enable-crds=PortForward",
            "--node-ip=127.0.0.1",
            f"--node-port={port}",
            "--cidr=10.64.0.0/16",
            f"--node-lease-duration-seconds={_LEASE_SECONDS}",
        ],
        net=plane.net,
        kill=True,
    )
    names = [f"fleet-{number}" for number in range(nodes)]
    for name in names:
        cluster.request("POST", "/api/v1/nodes", _node(name))

    def ready() -> bool:
        keeper.check("kwok")
        return all(_is_ready(cluster.request("GET", f"/api/v1/nodes/{name}")) for name in names)

    eventually(ready, "fake nodes")
    return names


def forward(cluster: Cluster, pod: Mapping[str, Any], ports: Mapping[int, int]) -> None:
    """Have a pod's ports be ports of this machine's loopback, for what is forwarded to them.

    Args:
        cluster: Its cluster.
        pod: The pod; it may go on without this afterwards.
        ports: This machine's port by the pod's.
    """
    metadata = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    forwards = [{"ports": [port], "target": {"address": "127.0.0.1", "port": here}} for port, here in ports.items()]
    kind = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "PortForward"}
    cluster.apply({**kind, "metadata": metadata, "spec": {"forwards": forwards}})


def _module() -> Path:
    return module_folder("kwok", "sigs.k8s.io/kwok")


def _node(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    metadata = {"name": name, "labels": labels, "annotations": dict([_FAKE])}
    return {"metadata": metadata, "status": {"allocatable": _SIZE, "capacity": _SIZE}}


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in node["status"].get("conditions") or []}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")


def _stages() -> list[dict[str, Any]]:
    """What kwok does with nodes and pods: its own stages, and ours for pods that fail."""
    folder = _module() / "kustomize" / "stage"
    ready = _load(folder / "pod/fast/pod-ready.yaml")
    expressions = ready["spec"]["selector"]["matchExpressions"]
    expressions.append({"key": _annotation(FAIL), "operator": "DoesNotExist"})
    ready["spec"]["delay"] = _delay()
    others = (
        "node/fast/node-initialize.yaml",
        "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
        "pod/fast/pod-complete.yaml",
        "pod/fast/pod-delete.yaml",
    )
    addresses = _addresses(ready["spec"]["next"]["statusTemplate"])
    failing = [_failing(name, failure, addresses) for name, failure in FAILURES.items()]
    return [*(_load(folder / path) for path in others), ready, *failing]


def _load(path: Path) -> dict[str, Any]:
    stage: dict[str, Any] = yaml.safe_load(path.read_text())
    return stage


def _annotation(name: str) -> str:
    return f'.metadata.annotations["{name}"]'


def _delay() -> dict[str, Any]:
    return {"durationMilliseconds": 0, "durationFrom": {"expressionFrom": _annotation(READY_DELAY)}}


def _addresses(template: str) -> str:
    """The part of kwok's own template that gives a pod its addresses."""
    start, end = template.index("{{ $hostIPs"), template.index("phase:")
    return template[start:end]


def _failing(name: str, failure: _Failure, addresses: str) -> dict[str, Any]:
    conditions = [
        _condition("PodReadyToStartContainers", True),
        _condition("Initialized", failure.initialized, "ContainersNotInitialized", "incomplete", "initContainers"),
        _condition("Ready", False, "ContainersNotReady", "unready", "containers"),
        _condition("ContainersReady", False, "ContainersNotReady", "unready", "containers"),
    ]
    template = "\n".join(
        [
            "{{ $now := Now }}",
            "{{ $pod := . }}",
            "conditions:",
            *conditions,
            *_statuses("initContainers", failure.init_containers),
            *_statuses("containers", failure.containers),
            addresses,
            f"phase: {failure.phase}",
            "startTime: {{ $now | Quote }}",
        ]
    )
    expressions = [
        {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
        {"key": _annotation(FAIL), "operator": "In", "values": [name]},
        {"key": ".status.containerStatuses", "operator": "DoesNotExist"},
    ]
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"pod-fails-{name}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": expressions},
            "delay": _delay(),
            "next": {"statusTemplate": template},
        },
    }


def _condition(kind: str, true: bool, reason: str = "", state: str = "", containers: str = "") -> str:
    """One condition of a pod; if it is false, its message lists the pod's containers."""
    lines = [f"- type: {kind}", f'  status: "{true}"', "  lastTransitionTime: {{ $now | Quote }}"]
    if not true:
        names = (
            f"{{{{ range $i, $c := .spec.{containers} }}}}{{{{ if $i }}}} {{{{ end }}}}{{{{ $c.name }}}}{{{{ end }}}}"
        )
        lines += [f"  reason: {reason}", f'  message: "containers with {state} status: [{names}]"']
    return "\n".join(lines)


def _statuses(containers: str, lines: str) -> list[str]:
    named = ["- name: {{ .name | Quote }}", "  image: {{ .image | Quote }}", lines]
    return [f"{containers[:-1]}Statuses:", f"{{{{ range .spec.{containers} }}}}", *named, "{{ end }}"]
