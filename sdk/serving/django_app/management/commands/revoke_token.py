"""``longshore django revoke_token USER``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from longshore.serving.django_app.models import Token
from longshore.serving.django_app.tokens import revoke

__all__ = ["Command"]


class Command(BaseCommand):
    """Revokes tokens."""

    help = "Revoke a user's tokens: all of them, or those of one label."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="name of the user")
        parser.add_argument("--label", help="only those of this label")

    def handle(self, *, user: str, label: str | None, **_: Any) -> None:
        tokens = Token.objects.filter(user__username=user, **({} if label is None else {"label": label}))
        number = revoke(tokens)
        if not number:
            raise CommandError(f"{user} has no such token that counts")
        self.stdout.write(f"{number} revoked")
