"""What the Django face is told, by the environment: a management command in the same pod is told the same.

``LONGSHORE_DJANGO_DATABASE_URL`` is the option ``database_url``, and so on. A secret can be in a file as well:
``LONGSHORE_DJANGO_DATABASE_URL_FILE`` names it. No secret is an argument, which every user of a machine could read.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from longshore.errors import ConfigError, InvalidValue
from longshore.home import home

__all__ = ["PREFIX", "DjangoOptions"]

PREFIX: Final = "LONGSHORE_DJANGO_"
"""What the names of the environment variables begin with."""

_SECRETS: Final = frozenset({"database_url", "secret_key", "admin_password"})
_YES: Final = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_HOST: Final = re.compile(r"\*|\.?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]")
_ORIGIN: Final = re.compile(r"https?://(\*\.)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class DjangoOptions:
    """Options of the Django face.

    Args:
        data_dir: Folder of the SQLite database and of the generated secret key; nobody else can read it.
        database_url: ``postgres://USER:PASSWORD@HOST:PORT/NAME``, or ``sqlite:///PATH``; None is SQLite in
            ``data_dir``.
        secret_key: Key that sessions are signed with; None generates one and keeps it in ``data_dir``. Replicas that
            share sessions need the same one.
        allowed_hosts: Names under which the admin panel is reached, beside loopback and this machine's own.
        trusted_origins: Origins such as ``https://models.example.org`` that forms may be sent from, for a proxy that
            changes the host.
        secure: Whether the panel is reached over HTTPS only: cookies are marked so, and a proxy's
            ``X-Forwarded-Proto`` is believed.
        admin: Whether there is an admin panel.
        admin_user: A superuser that is created at the start if it does not exist, with ``admin_password``.
        admin_password: Its password.
        require_token: Whether predictions and metadata need a token.
        log_share: Share of predictions that are written down, from 0 to 1.
        log_days: Predictions are kept so many days; None keeps them.
        log_rows: So many of them are kept; None keeps all.
        log_bytes: A request or answer that is larger is written down without its content.

    Raises:
        InvalidValue: If one breaks its rule.
    """

    data_dir: Path = field(default_factory=lambda: home() / "django")
    database_url: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    trusted_origins: tuple[str, ...] = ()
    secure: bool = False
    admin: bool = True
    admin_user: str | None = None
    admin_password: str | None = field(default=None, repr=False)
    require_token: bool = False
    log_share: float = 1.0
    log_days: float | None = 30.0
    log_rows: int | None = 1_000_000
    log_bytes: int = 65536

    def __post_init__(self) -> None:
        if not 0 <= self.log_share <= 1:
            raise InvalidValue("log_share", self.log_share, "a number from 0 to 1")
        for name in ("log_days", "log_rows", "log_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidValue(name, value, "more than 0")
        if self.secret_key is not None and len(self.secret_key) < 32:
            raise InvalidValue("secret_key", "(hidden)", "at least 32 characters that nobody can guess")
        if (self.admin_user is None) != (self.admin_password is None):
            raise InvalidValue("admin_user", self.admin_user, "a user and its password (admin_password) go together")
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise InvalidValue("allowed_hosts", host, "names such as models.example.org or .example.org")
        for origin in self.trusted_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidValue("trusted_origins", origin, "origins such as https://models.example.org")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> DjangoOptions:
        """The options that environment variables say.

        Args:
            environment: The variables; those that are empty count as unset.

        Raises:
            ConfigError: If there is a variable of that kind that is no option, or a file cannot be read.
            InvalidValue: If one breaks its rule.
        """
        kinds = {option.name: option.type for option in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or not text:
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name.endswith("_file") and name.removesuffix("_file") in _SECRETS:
                name, said = name.removesuffix("_file"), _read(variable, Path(text))
            else:
                said = text
            if name not in kinds:
                options = ", ".join(PREFIX + option.upper() for option in kinds)
                raise ConfigError(f"the environment variable {variable} is no option of the Django face: use {options}")
            if name in values:
                raise ConfigError(f"{PREFIX}{name.upper()} is set both by itself and as a file: unset one")
            values[name] = _parse(variable, str(kinds[name]), said)
        return cls(**values)

    @property
    def hosts(self) -> list[str]:
        """All names under which the admin panel is reached."""
        own = socket.gethostname()
        return ["localhost", "127.0.0.1", "[::1]", *([own] if _HOST.fullmatch(own) else []), *self.allowed_hosts]


def _read(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file {path} that {variable} names cannot be read: {error}") from error


def _parse(variable: str, kind: str, text: str) -> Any:
    if kind == "bool":
        if text.lower() not in _YES:
            raise InvalidValue(variable, text, "true or false")
        return _YES[text.lower()]
    if kind == "Path":
        return Path(text).expanduser().absolute()
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind.startswith(("int", "float")):
        if text.lower() == "none" and "None" in kind:
            return None
        try:
            return int(text) if kind.startswith("int") else float(text)
        except ValueError:
            raise InvalidValue(variable, text, "a number") from None
    return text
