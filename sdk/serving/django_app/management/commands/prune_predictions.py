"""``longshore django prune_predictions``."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from longshore.serving.django_app.log import prune

__all__ = ["Command"]


class Command(BaseCommand):
    """Deletes what is too old or too much."""

    help = "Delete predictions from the log that are too old or too many; the server does so by itself now and then."

    def add_arguments(self, parser: CommandParser) -> None:
        options = settings.LONGSHORE_OPTIONS
        parser.add_argument("--days", type=float, default=options.log_days, help="older ones go (%(default)s)")
        parser.add_argument("--rows", type=int, default=options.log_rows, help="so many stay (%(default)s)")

    def handle(self, *, days: float | None, rows: int | None, **_: Any) -> None:
        self.stdout.write(f"{prune(days=days, rows=rows)} deleted")
