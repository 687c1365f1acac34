"""A real Nginx: the one that is installed, or else Debian's, unpacked without being installed.

Installing Debian's package would start a server on port 80.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.system import Missing, cache_folder, locked

__all__ = ["check_configuration", "find_nginx", "nginx"]


def find_nginx() -> str:
    """The command.

    Raises:
        Missing: If there is none, and none can be had.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if found := shutil.which("nginx", path=path):
        return found
    place = cache_folder() / "nginx"
    with locked(cache_folder() / "nginx.lock"):
        if not (place / "usr/sbin/nginx").exists():
            _unpack(place)
    return str(place / "usr/sbin/nginx")


def _unpack(place: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing("Nginx is not installed: install the package nginx")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        work = Path(name)
        # apt drops to a user of its own for downloads
        work.chmod(0o755)
        for command in (
            ["apt-get", "download", "nginx"],
            ["apt-get", "update", "-qq"],
            ["apt-get", "download", "nginx"],
        ):
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if packages := list(work.glob("nginx_*.deb")):
                break
        else:
            raise Missing(f"Nginx is not installed, and cannot be downloaded: {done.stderr.strip()[-500:]}")
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(work / "root")], check=True)
        shutil.rmtree(place, ignore_errors=True)
        (work / "root").rename(place)


def _command(folder: Path) -> list[str]:
    return [find_nginx(), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def check_configuration(configuration: str, folder: Path) -> None:
    """Have Nginx check a configuration.

    Raises:
        AssertionError: If it does not accept it, with its words.
    """
    (folder / "nginx.conf").write_text(configuration)
    done = subprocess.run([*_command(folder), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{configuration}"


@contextmanager
def nginx(configuration: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run Nginx in the foreground with a configuration; it listens when this begins."""
    check_configuration(configuration, folder)
    with (
        (folder / "nginx.log").open("wb") as log,
        subprocess.Popen(_command(folder), stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(30) == 0, (folder / "nginx.log").read_text()
