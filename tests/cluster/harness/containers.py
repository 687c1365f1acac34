"""Containers of longshore's images, as podman runs them: with nothing that they could write to, and no way out."""

from __future__ import annotations

import ctypes
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.images import Images
from harness.serving import ModelServer, wait_for

__all__ = [
    "CONTAINER_COMMANDS",
    "Container",
    "first_process",
    "inspect_image",
    "mounted",
    "podman",
    "podman_done",
    "running",
]

CONTAINER_COMMANDS = {"podman": "podman", "buildah": "buildah", "runc": "runc"}
"""What running them takes: a command, and the Debian package that brings it."""


_STRICT = (
    "--read-only",
    "--network=none",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--pids-limit=200",
    # podman would raise the limit of open files over this machine's, which now and then is not permitted
    "--ulimit=host",
)
_CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


@dataclass
class Container(ModelServer):
    """A server in a container; its address counts within the container's network only.

    Args:
        name: The container's name.
    """

    name: str = ""

    @property
    def pid(self) -> int:
        """Its first process, as this machine numbers it."""
        return int(podman("inspect", "--format={{.State.Pid}}", self.name))

    def healthy(self) -> bool:
        """Whether its own health check passes."""
        done = podman_done("healthcheck", "run", self.name)
        assert self.process.poll() is None, self.log.read_text()
        return done.returncode == 0

    def enter(self) -> None:
        with Path(f"/proc/{self.pid}/ns/net").open("rb") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the container's network cannot be entered")

    def ask(self, question: Callable[[], Result]) -> Result:
        """Ask from within its network."""
        with ThreadPoolExecutor(1, initializer=self.enter) as thread:
            return thread.submit(question).result()

    def run(self, *command: str) -> str:
        """Run a command in it."""
        return podman("exec", self.name, *command)


def podman(*arguments: str) -> str:
    """Run podman; what it says."""
    done = podman_done(*arguments)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def podman_done(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run podman, however it ends."""
    return subprocess.run(
        ["podman", *arguments], env=Images().environment, capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def running(image: str, log: Path, *arguments: str, options: Sequence[str] = ()) -> Iterator[Container]:
    """Run a container of an image until its health check passes; it has to end well.

    Args:
        image: The image.
        log: Where what it says goes.
        arguments: What its command is given.
        options: Further options of podman.
    """
    name = f"longshore-{secrets.token_hex(4)}"
    command = ["podman", "run", "--rm", f"--name={name}", *_STRICT, *options, image, *arguments]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=Images().environment) as process,
    ):
        try:
            container = Container(process, "http://127.0.0.1:8080", log, name)
            wait_for(lambda: podman_done("container", "exists", name).returncode == 0 or process.poll() is not None)
            wait_for(container.healthy)
            yield container
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
        finally:
            podman_done("rm", "--force", "--ignore", "--time=0", name)


def inspect_image(image: str) -> dict[str, Any]:
    """What an image says of itself."""
    found: dict[str, Any] = json.loads(podman("image", "inspect", image))[0]
    return found


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """An image's files."""
    place = podman("image", "mount", image)
    try:
        yield Path(place)
    finally:
        podman("image", "unmount", image)


def first_process(container: Container) -> dict[str, list[str]]:
    """What the kernel says of a container's first process."""
    text = Path(f"/proc/{container.pid}/status").read_text()
    return {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
