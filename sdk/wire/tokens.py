"""Bearer tokens as text: one on each line, blank lines and ``# ...`` aside."""

from __future__ import annotations

import re
from typing import Final

from longshore.errors import InvalidValue

__all__ = ["tokens_of"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")


def tokens_of(text: bytes, *, option: str, place: str) -> tuple[str, ...]:
    """The tokens of a file's text, or of one key of a Secret.

    Args:
        text: The text.
        option: What named it, for messages.
        place: Where it stands, for messages.

    Raises:
        InvalidValue: If a line is none; no message holds a token.
    """
    known = list[str]()
    for number, line in enumerate(text.decode("latin-1").splitlines(), start=1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if _TOKEN.fullmatch(token) is None:
            rule = f"line {number} is no token: use 16 or more letters, digits and '._~+/-' (openssl rand -hex 32)"
            raise InvalidValue(option, place, rule)
        known.append(token)
    return tuple(known)
