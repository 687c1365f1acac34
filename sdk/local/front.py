"""A real Nginx in front of a service's revisions: a process that lives as long as the service.

It inherits its listening socket the way a new version of Nginx inherits that of the old one (the variable ``NGINX``),
so that a port which the kernel chooses is nobody else's in between. Its processes are a process group of their own and
hold a lock for life: while it is held, the group's number is surely theirs.

Sources: nginx.org, Controlling nginx; ngx_add_inherited_sockets in its source.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longshore.errors import ConfigError, DeployError
from longshore.local.process import KILL_SECONDS, bind
from longshore.local.state import tail
from longshore.locks import acquire, is_held
from longshore.spec import Tls
from longshore.targets.nginx import NGINX_READY

__all__ = ["Front", "check_certificate", "find_program"]

_START_SECONDS: Final = 10.0
_STEP_SECONDS: Final = 0.02
_KEEPS_IDLE: Final = (1, 27, 4)
"""The version since which ``keepalive_min_timeout`` is there."""


@dataclass(frozen=True)
class Front:
    """The Nginx of a service.

    Args:
        name: The service, for messages.
        place: Folder that is its own.
    """

    name: str
    place: Path

    @property
    def alive(self) -> bool:
        """Whether it runs, and can be told to share out otherwise."""
        if not is_held(self._lock):
            return False
        try:
            master = self._master()
        except (FileNotFoundError, ValueError):
            return False
        return any(not state.startswith("Z") for _, _, state in _processes(master))

    @property
    def log(self) -> Path:
        """Its log."""
        return self.place / "nginx.log"

    @property
    def keeps_idle(self) -> bool:
        """Whether it can spare idle connections when it is told to share out otherwise.

        Raises:
            ConfigError: If Nginx is not installed.
        """
        said = subprocess.run([find_program(), "-v"], capture_output=True, text=True, check=False).stderr
        version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
        return version is not None and tuple(map(int, version.groups())) >= _KEEPS_IDLE

    def certify(self, tls: Tls) -> None:
        """Have it prove itself with a certificate, from the next handshake on.

        It reads links to the files, so that no path of a user's is in its configuration, and one that is renewed in
        its place counts without any doing.

        Raises:
            ConfigError: If the certificate cannot be used.
        """
        check_certificate(tls)
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, path in (("tls.crt", tls.cert_file), ("tls.key", tls.key_file)):
            new = self.place / f"{name}.new"
            new.unlink(missing_ok=True)
            new.symlink_to(str(path))
            new.replace(self.place / name)

    def start(self, configure: Callable[[int], str], port: int | None) -> int:
        """Run it.

        Args:
            configure: Gives the configuration for the port of 127.0.0.1 that it listens on.
            port: The port, None for one that the kernel chooses.

        Returns:
            The port.

        Raises:
            ConfigError: If Nginx is not installed.
            DeployError: If it does not take the configuration, or the port cannot be had.
        """
        program = find_program()
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        # workers whose master was killed would still answer
        self.stop(0)
        listener = bind(self.name, port)
        try:
            with closing(socket.socket(fileno=os.dup(listener))) as bound:
                given = int(bound.getsockname()[1])
            self._write(program, configure(given))
            (self.place / "nginx.pid").unlink(missing_ok=True)
            with self._lock.open("a") as lock, self.log.open("ab") as log:
                if not acquire(lock.fileno(), KILL_SECONDS):
                    raise DeployError(f"the Nginx of {self.name} that was there before has not ended")
                process = subprocess.Popen(
                    self._command(program, self._configuration),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listener, lock.fileno()],
                    env={"PATH": os.environ.get("PATH", os.defpath), "NGINX": f"{listener};"},
                    cwd=self.place,
                    start_new_session=True,
                )
        except OSError as error:
            raise DeployError(f"Nginx could not be started for {self.name}: {error.strerror or error}") from error
        finally:
            os.close(listener)
        # it outlives this process on purpose; until then it must not stay as a zombie
        threading.Thread(target=process.wait, name=f"reaper of {self.name}'s Nginx", daemon=True).start()
        if not self._answers(given):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise DeployError(f"the Nginx of {self.name} did not start: {self._words()}")
        return given

    def reload(self, configuration: str, port: int, drain_seconds: float) -> None:
        """Have it share out by another configuration, and wait until nothing is shared out as before.

        Args:
            configuration: The configuration.
            port: The port that it has Nginx listen on.
            drain_seconds: How long requests that came in before are waited for.

        Raises:
            DeployError: If it does not take the configuration; then it goes on by the one that it has.
        """
        self._write(find_program(), configuration)
        master = self._master()
        before = _workers(master)
        os.kill(master, signal.SIGHUP)
        deadline = time.monotonic() + max(drain_seconds, _START_SECONDS)
        # those that were told to end accept nothing any more, and end with their last request
        while (now := _workers(master)) & before or not now:
            if not self.alive:
                raise DeployError(f"the Nginx of {self.name} has ended: {self._words()}")
            if time.monotonic() > deadline:
                break
            time.sleep(_STEP_SECONDS)
        if not now - before or not self._answers(port):
            raise DeployError(f"the Nginx of {self.name} did not take its new configuration: {self._words()}")

    def stop(self, drain_seconds: float) -> None:
        """End it: requests that it has are answered first.

        Raises:
            DeployError: If it does not end.
        """
        for signum, seconds in ((signal.SIGQUIT, drain_seconds), (signal.SIGTERM, KILL_SECONDS), (signal.SIGKILL, 5.0)):
            if not is_held(self._lock):
                return
            with suppress(ProcessLookupError, FileNotFoundError, ValueError):
                os.killpg(self._master(), signum)
            with self._lock.open("a") as lock:
                if acquire(lock.fileno(), seconds):
                    return
        raise DeployError(f"the Nginx of {self.name} could not be ended (log: {self.log})")

    @property
    def _lock(self) -> Path:
        return self.place / "lock"

    @property
    def _configuration(self) -> Path:
        return self.place / "nginx.conf"

    def _master(self) -> int:
        return int((self.place / "nginx.pid").read_text())

    def _words(self) -> str:
        return f"{tail(self.log, 1) or 'it says nothing'} (log: {self.log})"

    def _command(self, program: str, configuration: Path) -> list[str]:
        return [program, "-e", "stderr", "-p", str(self.place), "-c", str(configuration)]

    def _write(self, program: str, configuration: str) -> None:
        """Put a configuration in its place if Nginx takes it."""
        new = self.place / "nginx.conf.new"
        new.write_text(configuration, encoding="utf-8")
        done = subprocess.run(
            [*self._command(program, new), "-t"], capture_output=True, text=True, check=False, cwd=self.place
        )
        if done.returncode:
            raise DeployError(f"Nginx does not take the configuration of {self.name}: {done.stderr.strip()}")
        new.replace(self._configuration)

    def _answers(self, port: int) -> bool:
        """Whether it answers at a port, given the time to start."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException), closing(_connection(port)) as connection:
                connection.request("GET", NGINX_READY)
                # with TLS, it sends who comes without to where it is spoken
                if connection.getresponse().status in (http.client.OK, http.client.PERMANENT_REDIRECT):
                    return True
            if not is_held(self._lock):
                return False
            time.sleep(_STEP_SECONDS)
        return False


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=1)


def check_certificate(tls: Tls) -> None:
    """Refuse a certificate that no server could use.

    Raises:
        ConfigError: If its files cannot be read, do not belong together or ask for a password.
    """

    def ask() -> str:
        raise ConfigError(f"the private key {tls.key_file} has a password, and nobody is there to type it: remove it")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(tls.cert_file), str(tls.key_file), ask)
    except OSError as error:
        raise ConfigError(f"no TLS with {tls.cert_file} and {tls.key_file}: {error.strerror or error}") from error


def find_program() -> str:
    """The command ``nginx``.

    Raises:
        ConfigError: If it is not installed.
    """
    # where Debian has it, which is not on the path of everybody
    places = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/bin")
    found = shutil.which("nginx", path=os.pathsep.join(places))
    if found is None:
        raise ConfigError("the router of a service on this machine is an Nginx, and there is none: install nginx")
    return found


def _workers(master: int) -> set[int]:
    """The worker processes of a master."""
    return {pid for pid, parent, state in _processes() if parent == master and not state.startswith("Z")}


def _processes(only: int | None = None) -> Iterator[tuple[int, int, str]]:
    """Number, parent and state of each process, or of one."""
    if not Path("/proc/self/stat").exists():
        # not on Linux; there it is no program that every image has
        which = ["-A"] if only is None else ["-p", str(only)]
        command = ["/bin/ps", *which, "-o", "pid=,ppid=,state="]
        # it fails where there is none
        listed = subprocess.run(command, capture_output=True, text=True, check=only is None)
        for line in listed.stdout.splitlines():
            pid, parent, state = line.split()
            yield int(pid), int(parent), state
        return
    for stat in Path("/proc").glob(f"{'[0-9]*' if only is None else only}/stat"):
        with suppress(OSError):
            # the name, in parentheses, may have anything in it
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            yield int(stat.parent.name), int(parent), state
