"""What the harness needs of the machine."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = [
    "NODE_COMMANDS",
    "Missing",
    "cache_folder",
    "free_port",
    "free_ports",
    "install",
    "locked",
    "need_commands",
    "need_root",
]

_PORTS = range(12000, 30000)
"""Below those that Linux gives to outgoing connections, and those of Kubernetes' nodes."""

NODE_COMMANDS = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""What real nodes and their images take: a command or file, and the Debian package that brings it."""


class Missing(Exception):
    """A part of the machine is absent; the message is one sentence that says how to get it."""


def cache_folder() -> Path:
    """Where built programs and images are kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "longshore" / "cluster"


def need_root() -> None:
    """Raise Missing unless this process may make namespaces."""
    if os.getuid() != 0:
        raise Missing(
            "real nodes need root on Linux: run the tests as root, or name a cluster in LONGSHORE_TEST_KUBECONFIG"
        )


def need_commands(commands: dict[str, str]) -> None:
    """Raise Missing, naming the packages, unless all commands are there."""
    if packages := _absent(commands):
        raise Missing(f"system packages are missing: apt-get install {' '.join(packages)}")


def install(commands: dict[str, str]) -> None:
    """Install the Debian packages that are missing, where this process may.

    Raises:
        Missing: If it may not.
    """
    packages = _absent(commands)
    if not packages:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"system packages are missing (Debian's names): {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")


def _absent(commands: dict[str, str]) -> Sequence[str]:
    # a user's PATH often lacks the folders of system commands
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted(package for command, package in commands.items() if shutil.which(command, path=path) is None)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones, that no connection from here is given as its own before somebody listens on them."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.SystemRandom().choice(_PORTS)
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports
