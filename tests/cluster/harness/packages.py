"""Programs of Debian's packages, unpacked without being installed: installing one would start its server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.system import Missing, cache_folder, locked

__all__ = ["find_program"]


def find_program(name: str, place: str) -> str:
    """A program: the one that is installed, or else Debian's of the package of the same name.

    Args:
        name: Of the program, and of the package.
        place: Where it is in the package, such as ``usr/sbin/nginx``.

    Raises:
        Missing: If there is none, and none can be had.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if found := shutil.which(name, path=path):
        return found
    folder = cache_folder() / name
    with locked(cache_folder() / f"{name}.lock"):
        if not (folder / place).exists():
            _unpack(name, folder)
    return str(folder / place)


def _unpack(name: str, folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"{name} is not installed: install the package {name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch)
        # apt drops to a user of its own for downloads
        work.chmod(0o755)
        for command in (
            ["apt-get", "download", name],
            ["apt-get", "update", "-qq"],
            ["apt-get", "download", name],
        ):
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if packages := list(work.glob(f"{name}_*.deb")):
                break
        else:
            raise Missing(f"{name} is not installed, and cannot be downloaded: {done.stderr.strip()[-500:]}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(work / "root")], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        (work / "root").rename(folder)
