"""The ``longshore`` command. Its modules load when a command is used."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; ends the process.

    Exit status: 0 done (a model that was rejected is an outcome), 1 the work failed, 2 wrong use, 130 interrupted.

    Args:
        arguments: The arguments, by default those of the process.
    """
    from longshore.cli.app import run

    raise SystemExit(run(arguments))
