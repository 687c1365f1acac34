"""``python -m longshore.cli``: the ``longshore`` command."""

from longshore.cli import main

__all__: list[str] = []

main()
