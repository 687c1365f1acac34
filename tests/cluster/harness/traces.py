"""What a cluster has left on the machine: nothing, once it has ended."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from harness.keeper import runs_folder

__all__ = ["processes", "traces"]


def traces(slot: int) -> list[str]:
    """All that is there of the cluster in a slot: folder, processes, mounts, control groups, network."""
    folder = runs_folder() / str(slot)
    name = f"ls{slot}-"
    return [
        *([str(folder)] if folder.exists() else []),
        *processes(f"{folder}/"),
        *[line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{folder}/" in line],
        *[str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}*")],
        *[str(path) for path in Path("/run/netns").glob(f"{name}*")],
        *[line for line in _network() if name in line],
    ]


def processes(folder: str) -> list[str]:
    """Processes that were started with a path in the folder, or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if folder in command or str((process / "cwd").readlink()).startswith(folder):
                found.append(f"process {process.name}: {command}")
    return found


def _network() -> list[str]:
    lines: list[str] = []
    for what in ("link", "route"):
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(["ip", "-o", what], capture_output=True, text=True, check=False)
            lines += done.stdout.splitlines()
    return lines
