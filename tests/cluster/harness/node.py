"""A real node: containerd, kubelet and kube-proxy in namespaces of their own.

The first process of the node's process namespace holds everything: when it is killed, the kernel ends every process
and mount of the node at once, as when a machine loses its power.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from harness.builds import built
from harness.cluster import Cluster, eventually, write_kubeconfig
from harness.keeper import Keeper
from harness.network import Network
from harness.plane import Plane
from harness.store import Store
from harness.system import Missing

__all__ = ["Node"]

_CGROUPS = Path("/sys/fs/cgroup")
_UNUSED_PLUGINS = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
)


class Node:
    """A node that ends with its keeper.

    Args:
        keeper: Holds the processes.
        plane: The control plane that the node joins.
        network: Its network.
        index: Number of the node, from 1.
        registry: Address of the registry that all images are pulled from, whatever their name says.
        store: The images that it has from the start.
    """

    def __init__(self, keeper: Keeper, plane: Plane, network: Network, index: int, registry: str, store: Store) -> None:
        self._keeper, self._plane, self._network, self._index = keeper, plane, network, index
        self._registry, self._store = registry, store
        self._programs = built("kubernetes")
        self.name = network.node_name(index)
        self.address = network.node_address(index)
        self._folder = keeper.folder / self.name

    def start(self) -> None:
        """Start the node; it joins in a few seconds."""
        self._folder.mkdir()
        self._network.add_node(self._index)
        self._make_cgroups()
        self._write_files()
        self._store.copy(self._folder / "containerd")
        isolated = ["--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"]
        init: list[str | Path] = ["unshare", *isolated, "sh", self._folder / "init.sh"]
        self._keeper.spawn(self.name, init, net=self.name, kill=True)

    def wait_ready(self, cluster: Cluster) -> None:
        """Return when the control plane calls the node ready."""

        def ready() -> bool:
            self._keeper.check(self.name)
            node = cluster.get(f"/api/v1/nodes/{self.name}")
            conditions = node["status"].get("conditions", ()) if node else ()
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        eventually(ready, f"node {self.name}", 90)

    def power_off(self) -> None:
        """End everything on the node at once."""
        self._keeper.stop(self.name, kill=True)

    def _make_cgroups(self) -> None:
        if not (_CGROUPS / "memory").is_dir():
            raise Missing(
                "real nodes need control groups of version 1 here: boot with systemd.unified_cgroup_hierarchy=0, "
                "or name a cluster in LONGSHORE_TEST_KUBECONFIG"
            )
        places = [
            str(path / self.name) for path in sorted(_CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()
        ]
        # rmdir takes only what no process is in any more
        self._keeper.run(
            "mkdir", "-p", *places, undo=["find", *places, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]
        )
        for name in ("cpuset.cpus", "cpuset.mems"):
            source, target = _CGROUPS / "cpuset" / name, _CGROUPS / "cpuset" / self.name / name
            self._keeper.run("cp", "--no-preserve=all", source, target)

    def _write_files(self) -> None:
        folder, authority = self._folder, self._plane.authority
        name, address = self.name, self.address
        certificate, key = authority.issue(
            f"kubelet-{name}", f"system:node:{name}", organization="system:nodes", hosts=[name, address]
        )
        proxy = authority.issue(f"proxy-{name}", "system:kube-proxy")
        for user, pair in (("kubelet", (certificate, key)), ("proxy", proxy)):
            write_kubeconfig(folder / f"{user}.kubeconfig", self._plane.url, authority.pem, certificate=pair)
        (folder / "cni").mkdir()
        (folder / "hosts" / "_default").mkdir(parents=True)
        (folder / "hosts" / "_default" / "hosts.toml").write_text(
            f'server = "http://{self._registry}"\n[host."http://{self._registry}"]\n'
            '  capabilities = ["pull", "resolve"]\n'
        )
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (folder / "cni" / "10-bridge.conflist").write_text(json.dumps(self._cni()))
        (folder / "containerd.toml").write_text(self._containerd())
        (folder / "kubelet.yaml").write_text(json.dumps(self._kubelet(certificate, key)))
        (folder / "proxy.yaml").write_text(json.dumps(self._proxy()))
        (folder / "init.sh").write_text(self._init())

    def _cni(self) -> dict[str, Any]:
        addresses = {
            "type": "host-local",
            "dataDir": f"{self._folder}/addresses",
            "ranges": [[{"subnet": self._network.node_pods(self._index)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
        return {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
        }

    def _containerd(self) -> str:
        folder = self._folder
        # without restrict_oom_score_adj no sandbox starts where this process may not lower its own score
        return f"""\
version = 2
root = "{folder}/containerd"
state = "{folder}/state"
oom_score = 0
disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "registry.local/pause:1"
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/hosts"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{folder}/runc"
"""

    def _kubelet(self, certificate: Path, key: Path) -> dict[str, Any]:
        folder = self._folder
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": 10250,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._plane.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "clusterDomain": "cluster.local",
            "clusterDNS": [self._network.dns],
            "resolvConf": f"{folder}/resolv.conf",
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "enforceNodeAllocatable": ["pods"],
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            # without it the kubelet's statistics fail
            "localStorageCapacityIsolation": True,
            "evictionHard": dict.fromkeys(
                ("imagefs.available", "nodefs.available", "nodefs.inodesFree", "memory.available"), "0%"
            ),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": 100,
            "podLogsDir": f"{folder}/logs",
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 8,
            "syncFrequency": "10s",
            "featureGates": {"KubeletInUserNamespace": True},
        }

    def _proxy(self) -> dict[str, Any]:
        untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            # with nftables, a connection in some 250,000 is refused while endpoints change, whatever is behind them
            "mode": "iptables",
            "clientConnection": {"kubeconfig": f"{self._folder}/proxy.kubeconfig"},
            "hostnameOverride": self.name,
            "clusterCIDR": self._network.pods,
            "oomScoreAdj": 0,
            "conntrack": untouched,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "iptables": {"minSyncPeriod": "100ms"},
        }

    def _init(self) -> str:
        folder, programs = shlex.quote(str(self._folder)), shlex.quote(str(self._programs))
        return f"""\
export PATH="$PATH:/usr/sbin:/sbin"
mount --make-rslave / && mount --make-rshared / && hostname {self.name}
# nothing on the node asks a name server of the machine's: for an unknown registry that takes ten seconds and more
mount --bind {folder}/resolv.conf /etc/resolv.conf
# paths that are fixed in the programs, private to the node
for place in /run/netns /run/containerd /var/lib/kubelet /var/log/containers; do
    mkdir -p $place && mount -t tmpfs tmpfs $place
done
containerd --config {folder}/containerd.toml >{folder}/containerd.log 2>&1 &
until [ -S {folder}/containerd.sock ]; do sleep 0.05; done
{programs}/kube-proxy --config={folder}/proxy.yaml >{folder}/proxy.log 2>&1 &
while :; do
    {programs}/kubelet --config={folder}/kubelet.yaml --kubeconfig={folder}/kubelet.kubeconfig \\
        --hostname-override={self.name} --node-ip={self.address} --root-dir={folder}/kubelet \\
        --cert-dir={folder}/certificates >>{folder}/kubelet.log 2>&1
    sleep 1
done
"""
