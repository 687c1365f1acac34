"""Runs all tests, those on clusters beside all others: either of them waits more than it works."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

CLUSTER = "tests/cluster"


class Group:
    """Commands of which each is run if the one before went well; their lines are told with the group's name.

    Args:
        name: Its name.
        commands: The commands.
    """

    def __init__(self, name: str, *commands: Sequence[str]) -> None:
        self.name, self.status = name, 0
        self._commands = commands
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False
        self.thread = threading.Thread(target=self._run, name=name)

    def interrupt(self) -> None:
        """Have it end, with what it can tell so far."""
        self._interrupted = True
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def _run(self) -> None:
        for command in self._commands:
            # a session of its own, so that an interrupt from the keyboard comes once
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            for line in self._process.stdout or ():
                sys.stdout.write(f"{self.name}: {line}")
                sys.stdout.flush()
            self.status = self._process.wait()
            if self.status or self._interrupted:
                return


def main(frameworks: str) -> int:
    """Run the tests.

    Args:
        frameworks: The Python that has PyTorch, TensorFlow and TorchServe.

    Returns:
        0 if all passed.
    """
    pytest = [sys.executable, "-m", "pytest"]
    last = [frameworks, "-m", "pytest", "tests/frameworks"]
    groups = [Group("cluster", [*pytest, CLUSTER]), Group("others", [*pytest, f"--deselect={CLUSTER}"], last)]

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for group in groups:
            group.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    for group in groups:
        group.thread.start()
    for group in groups:
        group.thread.join()
        if group.status:
            print(f"{group.name}: failed with status {group.status}", file=sys.stderr)
    return int(any(group.status for group in groups))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
