"""Where longshore keeps what it needs on this machine: one folder, moved by ``LONGSHORE_HOME``."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["home", "local_state", "model_repository", "package_repository", "registry_uri", "runs"]


def home() -> Path:
    """The folder itself; it is made when something is first written there."""
    return Path(os.environ.get("LONGSHORE_HOME") or Path.home() / ".longshore").expanduser().absolute()


def registry_uri() -> str:
    """Tracking URI of the embedded registry: a SQLite file."""
    return f"sqlite:///{home() / 'registry.db'}"


def model_repository() -> str:
    """Folder of packaged models, one folder per name and version."""
    return str(home() / "models")


def package_repository(server: str) -> str:
    """Folder of what is packaged for a server of another kind, one folder per name and version.

    Args:
        server: Such as ``torchserve``.
    """
    return str(home() / server)


def local_state() -> Path:
    """State of the servers that run on this machine."""
    return home() / "local"


def runs() -> Path:
    """Artifacts of pipeline runs on this machine."""
    return home() / "runs"
