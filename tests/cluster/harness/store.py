"""The images that every node has from the start.

They are pulled and unpacked once, into a store of containerd that is kept in the cache. A node gets a copy of it that
shares the files: containerd never changes a layer once it is there, and its databases are copied for real.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from pathlib import Path

from harness.builds import built
from harness.cluster import eventually
from harness.images import Images
from harness.keeper import Keeper
from harness.system import Missing, cache_folder, free_port, locked

__all__ = ["Store"]

_NAMESPACE = "k8s.io"


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
        if not store._content.exists():
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
            shutil.copytree(self._root, target, symlinks=True, copy_function=_share)

    def _pull(self, keeper: Keeper, images: Images, names: list[str]) -> None:
        registry = f"127.0.0.1:{free_port()}"
        keeper.spawn("registry", [built("images") / "registry", registry, cache_folder() / "layers"])
        eventually(lambda: _answers(registry), "registry", 20)
        address = self._start_containerd(keeper)
        ctr = ["ctr", "--address", address, "--namespace", _NAMESPACE, "images"]
        for name in names:
            images.push(name, registry)
            pulled = f"{registry}/{name.partition('/')[2]}"
            keeper.run(*ctr, "pull", "--plain-http", pulled)
            keeper.run(*ctr, "tag", "--force", pulled, name)
            keeper.run(*ctr, "rm", pulled)
        outdated = set(keeper.run(*ctr, "ls", "--quiet").split()) - set(names)
        for name in outdated:
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


def _share(source: str, target: str) -> str:
    if source.endswith(".db"):
        return str(shutil.copy2(source, target))
    try:
        Path(target).hardlink_to(source)
    except OSError:
        # special files of a layer, or a cache on another file system
        return str(shutil.copy2(source, target, follow_symlinks=False))
    return target


def _answers(registry: str) -> bool:
    with contextlib.closing(http.client.HTTPConnection(registry, timeout=2)) as connection:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
