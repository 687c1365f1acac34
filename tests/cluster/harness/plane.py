"""A control plane: etcd, API server, controllers and scheduler, as processes.

Without a network of its own it listens on loopback only, and needs no root.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import ssl
from pathlib import Path

from harness.builds import built
from harness.certificates import Authority, write_signing_key
from harness.cluster import Cluster, eventually, write_kubeconfig
from harness.keeper import Keeper
from harness.system import free_port

__all__ = ["Plane"]

_SERVICES = "10.0.0.0/16"
_ADMINISTRATOR = "admin"


class Plane:
    """A control plane that ends with its keeper.

    Args:
        keeper: Holds the processes.
        address: Where the API server listens.
        services: Range of the addresses of Services.
        net: Network namespace that all is started in; None is the machine's.

    Attributes:
        url: Address of the API server.
        authority: Signs the certificates of all that take part.
        kubectl: The program.
    """

    def __init__(
        self, keeper: Keeper, *, address: str = "127.0.0.1", services: str = _SERVICES, net: str | None = None
    ) -> None:
        self._keeper = keeper
        self._address = address
        self.services = services
        self.net = net
        self._programs = built("kubernetes")
        self.folder = keeper.folder
        self.kubectl = self._programs / "kubectl"
        self.authority = Authority(self.folder)
        self._ports = {name: free_port() for name in ("etcd", "peers", "api", "controllers", "scheduler")}
        self.url = f"https://{address}:{self._ports['api']}"
        self._tokens: dict[str, str] = {}

    def start(self) -> Cluster:
        """Start everything and return the cluster once its default service account is there."""
        self._write_secrets()
        self._start_etcd()
        self.start_api_server()
        qps = ["--kube-api-qps=500", "--kube-api-burst=1000"]
        for name, user, port, options in (
            ("kube-controller-manager", "controllers", "controllers", self._controller_options()),
            ("kube-scheduler", "scheduler", "scheduler", []),
        ):
            config = self.kubeconfig(user)
            self._spawn(
                name,
                f"--kubeconfig={config}",
                f"--authentication-kubeconfig={config}",
                f"--authorization-kubeconfig={config}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._ports[port]}",
                "--leader-elect=false",
                "--profiling=false",
                f"--cert-dir={self.folder}/{name}",
                *qps,
                *options,
            )
        cluster = Cluster(self.kubeconfig(_ADMINISTRATOR), self.folder)
        eventually(lambda: cluster.get("/api/v1/namespaces/default/serviceaccounts/default"), "default service account")
        return cluster

    def start_api_server(self) -> None:
        """Start the API server and wait until it is ready; it comes back under the same address and certificates."""
        folder = self.folder
        options = [
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            f"--bind-address={self._address}",
            f"--secure-port={self._ports['api']}",
            f"--advertise-address={self._address}",
            f"--tls-cert-file={folder}/api.crt",
            f"--tls-private-key-file={folder}/api.key",
            f"--client-ca-file={folder}/ca.crt",
            f"--requestheader-client-ca-file={folder}/ca.crt",
            f"--kubelet-client-certificate={folder}/kubelet-client.crt",
            f"--kubelet-client-key={folder}/kubelet-client.key",
            f"--kubelet-certificate-authority={folder}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/service-accounts.key",
            f"--service-account-signing-key-file={folder}/service-accounts.key",
            f"--service-cluster-ip-range={self.services}",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={folder}/tokens.csv",
            "--allow-privileged=true",
            # in a network of its own, pods find the API server behind the Service `kubernetes`
            f"--endpoint-reconciler-type={'none' if self.net is None else 'lease'}",
            "--default-not-ready-toleration-seconds=5",
            "--default-unreachable-toleration-seconds=5",
            "--profiling=false",
        ]
        self._spawn("kube-apiserver", *options)
        eventually(self._api_ready, "API server", 90)

    def stop_api_server(self) -> None:
        """End the API server, as when its machine loses its power."""
        self._keeper.stop("kube-apiserver")

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one of the plane's own users."""
        return write_kubeconfig(
            self.folder / f"{user}.kubeconfig", self.url, self.authority.pem, token=self._tokens[user]
        )

    def _write_secrets(self) -> None:
        service = self.services.rsplit(".", 1)[0] + ".1"
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        self.authority.issue("api", "kube-apiserver", hosts=[*names, "127.0.0.1", self._address, service])
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", organization="system:masters")
        write_signing_key(self.folder / "service-accounts.key")
        users = {
            _ADMINISTRATOR: ("admin", "system:masters"),
            "controllers": ("system:kube-controller-manager", ""),
            "scheduler": ("system:kube-scheduler", ""),
            "kwok": ("kwok", "system:masters"),
        }
        self._tokens = {user: secrets.token_hex(16) for user in users}
        lines = [f'{self._tokens[user]},{name},{user},"{groups}"\n' for user, (name, groups) in users.items()]
        path = self.folder / "tokens.csv"
        path.touch(mode=0o600)
        path.write_text("".join(lines))

    def _start_etcd(self) -> None:
        clients, peers = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "peers"))
        self._spawn(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--log-level=warn",
        )

    def _controller_options(self) -> list[str]:
        return [
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.folder}/service-accounts.key",
            f"--root-ca-file={self.folder}/ca.crt",
            f"--cluster-signing-cert-file={self.folder}/ca.crt",
            f"--cluster-signing-key-file={self.folder}/ca.key",
            # an autoscaler looks every second, and believes what it is told of pods that have just come up
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
            "--node-monitor-period=1s",
            "--node-monitor-grace-period=10s",
            f"--service-cluster-ip-range={self.services}",
        ]

    def _spawn(self, program: str, *options: str) -> None:
        # nothing of it is needed any more when it ends
        self._keeper.spawn(program, [self._programs / program, *options], net=self.net, kill=True)

    def _api_ready(self) -> bool:
        self._keeper.check("etcd")
        self._keeper.check("kube-apiserver")
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        connection = http.client.HTTPSConnection(self._address, self._ports["api"], context=context, timeout=2)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self._tokens[_ADMINISTRATOR]}"})
            return bool(connection.getresponse().read() == b"ok")
