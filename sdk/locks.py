"""Files that are locked for as long as a process lives: the kernel frees them however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

__all__ = ["acquire", "is_held"]


def acquire(fd: int, timeout_seconds: float) -> bool:
    """Take an exclusive lock; False if another process holds it for longer than the time.

    Args:
        fd: An open file; the lock lasts until it is closed.
        timeout_seconds: How long to wait.
    """
    got = threading.Event()
    # the kernel knows no time limit for this, so a thread waits, on a copy that it can close by itself
    copy = os.dup(fd)

    def wait() -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(copy, fcntl.LOCK_EX)
            got.set()
        os.close(copy)

    threading.Thread(target=wait, name="lock", daemon=True).start()
    return got.wait(timeout_seconds)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    try:
        with path.open("rb") as lock:
            # shared, so that several that ask at once do not take each other for the holder
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
