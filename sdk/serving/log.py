"""What a server logs: lines for people, or a JSON object each for programs."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, Final

__all__ = ["FIELDS", "FORMATS", "JsonFormatter", "configure"]

FORMATS: Final = ("text", "json")

FIELDS: Final = ("request_id", "trace_id", "method", "path", "route", "status", "seconds")
"""What a record can have beside its message (``extra``)."""


class JsonFormatter(logging.Formatter):
    """A record as one line: ``time`` (UTC), ``level``, ``logger``, ``message``, :data:`FIELDS`, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        content |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def configure(form: str = "text") -> None:
    """Log to standard error.

    Args:
        form: One of :data:`FORMATS`.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
