"""The database of the Django face: its address, its tables, its first user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from longshore.errors import ConfigError, InvalidValue
from longshore.locks import acquire

if TYPE_CHECKING:
    from longshore.serving.django_app.options import DjangoOptions

__all__ = ["connection_settings", "prepare"]

_PARAMETERS: Final = frozenset(
    {"application_name", "channel_binding", "connect_timeout", "sslcert", "sslkey", "sslmode", "sslrootcert"}
)
_RULE: Final = "postgres://USER:PASSWORD@HOST:PORT/NAME or sqlite:///PATH"
_ADVISORY: Final = 0x6C6F6E67  # any number that nobody else locks
_LOCK_SECONDS: Final = 60.0


def connection_settings(options: DjangoOptions) -> dict[str, Any]:
    """What Django is told of the database.

    Raises:
        InvalidValue: If its URL is none. The message does not repeat it, as there may be a password in it.
    """
    url = options.database_url
    if url is None:
        return _sqlite(str(options.data_dir / "django.db"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValue("database_url", "(hidden)", _RULE) from None
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return _sqlite(unquote(parts.path))
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("postgres", "postgresql") or not name or "/" in name or not parts.username:
        raise InvalidValue("database_url", "(hidden)", _RULE)
    given = dict(parse_qsl(parts.query))
    if unknown := sorted(given.keys() - _PARAMETERS):
        known = ", ".join(sorted(_PARAMETERS))
        raise InvalidValue("database_url", f"…?{unknown[0]}=", f"its parameters can be {known}")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": port or "",
        # a database that answers nothing is noticed, too
        "OPTIONS": {
            "connect_timeout": 5,
            "tcp_user_timeout": 15_000,
            "options": "-c statement_timeout=15000",
            **given,
        },
    }


def _sqlite(path: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "timeout": 10,
            # a transaction that reads first and writes then would not wait for others, but fail
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def prepare(options: DjangoOptions) -> None:
    """Make the tables, or bring them up to date, and the first superuser: in one process at a time.

    Raises:
        django.db.OperationalError: If the database cannot be reached or written.
        ConfigError: If another process has been at it for a minute.
    """
    from django.core.management import call_command
    from django.db import connection

    # SQLite fails at once where two processes are the first ones to open a database, so nobody looks beside another
    if connection.vendor == "postgresql" and _is_done(options):
        return
    with _alone():
        # another process may have done it meanwhile
        if _is_done(options):
            return
        call_command("migrate", verbosity=0, interactive=False)
        _first_user(options)


def _is_done(options: DjangoOptions) -> bool:
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return False
    name = options.admin_user
    return name is None or get_user_model().objects.filter(username=name).exists()


def _first_user(options: DjangoOptions) -> None:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    # a password that was changed since then stays
    if options.admin_user is not None and not users.filter(username=options.admin_user).exists():
        users.create_superuser(options.admin_user, password=options.admin_password)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    from django.db import OperationalError, connection

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # it ends with the connection, however the process ends
            cursor.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_ADVISORY])
        return
    path = f"{connection.settings_dict['NAME']}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OperationalError(f"unable to open {path}: {error.strerror}") from error
    try:
        if not acquire(fd, _LOCK_SECONDS):
            raise ConfigError(
                f"another process has been changing the tables of {path.removesuffix('.lock')} for a minute"
            )
        yield
    finally:
        os.close(fd)
