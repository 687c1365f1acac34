"""Names of revisions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field
from typing import Any, Protocol

from longshore.spec.plain import to_plain
from longshore.spec.service import Service

__all__ = ["revision_name"]


class _Served(Protocol):
    @property
    def service(self) -> Service: ...


def revision_name(served: _Served) -> str:
    """A name for a value in which all of its content counts; what stands at its default does not.

    So the names of what runs already stay when a field is added.
    """
    content = _content(served)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{served.service.name}-{digest[:8]}"


def _content(value: Any) -> Any:
    """The value as plain data, without the fields that are as they are by default."""
    if hasattr(value, "__dataclass_fields__"):
        fields: dict[str, Field[Any]] = value.__dataclass_fields__
        given = {name: getattr(value, name) for name in fields}
        return {name: _content(one) for name, one in given.items() if one != _default(fields[name])}
    if isinstance(value, (list, tuple)):
        return [_content(one) for one in value]
    return {key: _content(one) for key, one in value.items()} if hasattr(value, "items") else to_plain(value)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
