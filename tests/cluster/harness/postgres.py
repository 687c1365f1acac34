"""A real PostgreSQL for a test: its own cluster of databases, on loopback, with a password, ended afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["MISSING", "Postgres", "find_postgres"]

MISSING: Final = "PostgreSQL is not installed: apt-get install postgresql, which need not run"

_PASSWORD: Final = "s3cret/pass word"


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs, where Debian puts them or on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    for folder in (*reversed(debian), *([Path(found).parent] if found else [])):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


class Postgres:
    """A PostgreSQL that can be stopped and started again on its port.

    Args:
        folder: Where its data goes; it is made.
        programs: What :func:`find_postgres` gives.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._data, self._programs = folder, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            # it refuses to run as root
            shutil.chown(folder, "nobody", "nogroup")
        secret = folder.with_name(f"{folder.name}.password")
        secret.write_text(_PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        self._run("initdb", "-D", str(folder), "-U", "longshore", "--pwfile", str(secret), "--auth=scram-sha-256")
        secret.unlink()

    @property
    def url(self) -> str:
        """Its URL, with the password."""
        return (
            f"postgres://longshore:{_PASSWORD.replace('/', '%2F').replace(' ', '%20')}@127.0.0.1:{self.port}/postgres"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._data / "log"), "-o", options)

    def stop(self) -> None:
        """Stop it at once."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-w", "-D", str(self._data))

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return (self._data / "postmaster.pid").exists()

    def _run(self, program: str, *arguments: str) -> None:
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        subprocess.run(
            [*user, str(self._programs / program), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
