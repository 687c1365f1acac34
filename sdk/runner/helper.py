"""The helper process of :mod:`longshore.runner.forkserver`, as the runner has it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Final

__all__ = ["Helper", "libraries_for"]

# in the order in which a pipeline comes to need them, in parts: a step that starts meanwhile waits for one at most
_LIBRARIES: Final = (
    "numpy",
    "pyarrow",
    "pandas",
    "pandera.pandas",
    "scipy.sparse",
    "scipy.linalg",
    "scipy.stats",
    "joblib",
    "sklearn.base",
    "sklearn.linear_model",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.metrics",
    "matplotlib.figure",
    "mlflow.tracking",
)
_OURS: Final = "longshore."


def libraries_for(source: str) -> list[str]:
    """The libraries worth loading ahead of steps with this source: those it names, all for this library's steps."""
    if sys.platform == "darwin":
        # Apple's frameworks beneath numpy do not survive a fork
        return []
    return [name for name in _LIBRARIES if _OURS in source or re.search(rf"\b{name.partition('.')[0]}\b", source)]


class Helper:
    """A helper process; it ends with this object's ``close`` or with this process.

    Args:
        modules: What it imports ahead; by default what this library's steps need.
    """

    def __init__(self, modules: Sequence[str] | None = None) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the helper
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "longshore.runner.forkserver",
                    str(theirs.fileno()),
                    *(libraries_for(_OURS) if modules is None else modules),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                env={**os.environ, "_KFP_RUNTIME": "true"},
                # Ctrl-C in the terminal is for the runner, which then ends the steps in order
                start_new_session=True,
            )

    def start_step(self, channel: socket.socket, output: int) -> None:
        """Have a step started that reads its request from ``channel`` and writes to the file descriptor ``output``.

        Raises:
            OSError: If the helper is gone.
        """
        socket.send_fds(self._control, [b"s"], [channel.fileno(), output])

    def last_words(self) -> str:
        """The last line that the helper itself has written, empty if there is none."""
        size = os.fstat(self._words.fileno()).st_size
        lines = os.pread(self._words.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End the helper. Steps that run are not ended by this, but when their channels are closed."""
        self._control.close()
        # it holds nothing but loaded libraries
        self._process.kill()
        self._process.wait()
        self._words.close()

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
