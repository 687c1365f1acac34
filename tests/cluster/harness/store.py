"""The images that every node has from the start.

They are pulled and unpacked once, into a store of containerd that is kept in the cache. A node gets a copy of it that
shares the files: containerd never changes a layer once it is there, and its databases are copied for real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from harness.builds import built
from harness.cluster import eventually
from harness.images import Images
from harness.keeper import CommandFailed, Keeper
from harness.system import Missing, cache_folder, locked

__all__ = ["Store"]

_NAMESPACE = "k8s.io"
_REGISTRY = "127.0.0.1:5000"


class Store:
    """A folder of containerd's with all images in it."""

    def __init__(self) -> None:
        self._folder = cache_folder() / "store"
        self._root = self._folder / "containerd"
        self._content = self._folder / "content.json"

    @classmethod
    def ready(cls) -> Store:
        """The store as it was prepared.

        Raises:
            Missing: If it was not.
        """
        store = cls()
        with locked(store._folder / "lock"):
            prepared = store._content.exists()
        if not prepared:
            raise Missing("the images of the nodes are not built: run 'make cluster-parts'")
        return store

    @classmethod
    def prepare(cls, images: Images, names: list[str]) -> Store:
        """The store with just these images, as they were built last."""
        store = cls()
        wanted = {name: images.identity(name) for name in names}
        with locked(store._folder / "lock"):
            if not store._content.exists() or json.loads(store._content.read_text()) != wanted:
                store._content.unlink(missing_ok=True)
                keeper = Keeper()
                try:
                    store._pull(keeper, images, names)
                finally:
                    keeper.close()
                store._content.write_text(json.dumps(wanted))
        return store

    def copy(self, target: Path) -> None:
        """Make a copy that a containerd may work in."""
        with locked(self._folder / "lock"):
            # with the owners of folders: a container's user writes to its home
            copy = ["cp", "--archive", "--no-target-directory", str(self._root), str(target)]
            if subprocess.run([*copy, "--link"], capture_output=True, check=False).returncode:
                # a cache on another file system
                shutil.rmtree(target, ignore_errors=True)
                subprocess.run(copy, check=True)
        for shared in target.glob("*/*.db"):
            own = shared.with_suffix(".own")
            shutil.copy2(shared, own)
            own.replace(shared)

    def _pull(self, keeper: Keeper, images: Images, names: list[str]) -> None:
        # in a network of its own the registry has the same address each time, and what was pushed is remembered
        net = f"ls{keeper.slot}-store"
        inside = ["nsenter", f"--net=/run/netns/{net}"]
        keeper.run("ip", "netns", "add", net, undo=["ip", "netns", "del", net])
        keeper.run("ip", "-n", net, "link", "set", "lo", "up")
        layers = cache_folder() / "layers"
        layers.mkdir(parents=True, exist_ok=True)
        keeper.spawn("registry", [built("images") / "registry", _REGISTRY, layers], net=net, kill=True)
        eventually(lambda: _answers(keeper, inside), "registry", 20)
        ctr = ["ctr", "--address", self._start_containerd(keeper), "--namespace", _NAMESPACE, "images"]
        for name in names:
            keeper.run(*inside, *images.push_command(name, _REGISTRY))
            pulled = f"{_REGISTRY}/{name.partition('/')[2]}"
            keeper.run(*inside, *ctr, "pull", "--plain-http", pulled)
            keeper.run(*ctr, "tag", "--force", pulled, name)
            keeper.run(*ctr, "rm", pulled)
        for name in set(keeper.run(*ctr, "ls", "--quiet").split()) - set(names):
            keeper.run(*ctr, "rm", "--sync", name)

    def _start_containerd(self, keeper: Keeper) -> str:
        address = keeper.folder / "containerd.sock"
        config = keeper.folder / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self._root}"\nstate = "{keeper.folder}/state"\n[grpc]\naddress = "{address}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        )
        keeper.spawn("containerd", ["unshare", "--mount", "--propagation", "private", "containerd", "--config", config])
        eventually(address.exists, "containerd", 20)
        return str(address)


def _answers(keeper: Keeper, inside: list[str]) -> bool:
    host, _, port = _REGISTRY.partition(":")
    try:
        keeper.run(*inside, sys.executable, "-c", f"import socket; socket.create_connection(({host!r}, {port}))")
    except CommandFailed:
        return False
    return True
