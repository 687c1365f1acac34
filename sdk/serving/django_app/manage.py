"""Django's commands, for the database that the server uses: ``longshore django createsuperuser`` and others."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from longshore.errors import ConfigError, LongshoreError, MissingExtra

__all__ = ["main", "manage"]


def manage(arguments: Sequence[str]) -> None:
    """Run a command of Django's, such as ``createsuperuser``, ``create_token`` or ``prune_predictions``.

    Tables are made first. The environment says which database, as it says it to the server.

    Args:
        arguments: The command and its arguments; ``help`` lists all.

    Raises:
        ConfigError: If an option is wrong, or the database cannot be reached.
        MissingExtra: If Django is not installed.
    """
    try:
        import django  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("the Django face", "django", "django") from error
    from django.core.management import execute_from_command_line
    from django.db import Error

    from longshore.serving.django_app.database import prepare
    from longshore.serving.django_app.options import DjangoOptions
    from longshore.serving.django_app.settings import configure

    options = DjangoOptions.from_environment()
    configure(options)
    try:
        if arguments and arguments[0] not in ("help", "version", "--help", "--version", "makemigrations"):
            prepare(options)
        execute_from_command_line(["longshore django", *(arguments or ["help"])])
    except Error as error:
        raise ConfigError(f"the database of the Django face cannot be used: {str(error).strip()}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 if it failed."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    try:
        manage(sys.argv[1:] if arguments is None else arguments)
    except LongshoreError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
