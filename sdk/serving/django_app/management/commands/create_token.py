"""``longshore django create_token USER LABEL``."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from longshore.serving.django_app.tokens import create_token

__all__ = ["Command"]


class Command(BaseCommand):
    """Makes a token."""

    help = "Make a token for a user, and print it; it can be seen this once. A user that does not exist is made."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="name of the user")
        parser.add_argument("label", help="what the token is for")
        parser.add_argument("--days", type=float, help="how long it counts; without end by default")

    def handle(self, *, user: str, label: str, days: float | None, **_: Any) -> None:
        if days is not None and not days > 0:
            raise CommandError("--days must be more than 0")
        users = get_user_model()
        owner, made = users.objects.get_or_create(username=user)
        if made:
            # somebody who asks for predictions, and cannot log in
            owner.set_unusable_password()
            owner.save()
        expires = None if days is None else timezone.now() + dt.timedelta(days=days)
        _, token = create_token(owner, label, expires)
        self.stdout.write(token)
