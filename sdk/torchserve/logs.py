"""What the workers of a TorchServe write down, where that can be read."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from longshore.packaging.torchserve_process import traceback_in

__all__ = ["Logs"]

_FILES: Final = ("model_log.log", "ts_log.log")
_POLL_SECONDS: Final = 0.2


class Logs:
    """The logs of a version's workers, from now on.

    Args:
        folder: Where they are; None where they cannot be read.
        model: Name of the model.
        version: The version.
    """

    def __init__(self, folder: Path | None, model: str, version: str) -> None:
        self._folder, self._of = folder, f"-{model}_{version}-std"
        self._begin = {name: self._size(name) for name in _FILES}

    @property
    def readable(self) -> bool:
        """Whether there are any."""
        return self._folder is not None and any((self._folder / name).is_file() for name in _FILES)

    def error(self, *, wait_seconds: float = 0) -> str | None:
        """The last error of the workers, in their own words.

        Args:
            wait_seconds: How long to wait for one: it is written down after TorchServe has told that a worker died.
        """
        deadline = time.monotonic() + (wait_seconds if self.readable else 0)
        while True:
            for name in _FILES:
                if told := traceback_in(self._lines(name)):
                    return told.splitlines()[-1]
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)

    def _size(self, name: str) -> int:
        with contextlib.suppress(OSError):
            if self._folder is not None:
                return (self._folder / name).stat().st_size
        return 0

    def _lines(self, name: str) -> list[str]:
        with contextlib.suppress(OSError):
            if self._folder is not None:
                content = (self._folder / name).read_bytes()
                # one that has become shorter has been begun anew
                begin = self._begin[name] if len(content) >= self._begin[name] else 0
                lines = content[begin:].decode("utf-8", "replace").splitlines()
                return [line for line in lines if self._of in line]
        return []
