"""A real Nginx: the one that is installed, or else Debian's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.packages import find_program

__all__ = ["check_configuration", "find_nginx", "nginx"]


def find_nginx() -> str:
    """The command.

    Raises:
        Missing: If there is none, and none can be had.
    """
    return find_program("nginx", "usr/sbin/nginx")


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
