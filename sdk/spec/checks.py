"""What names, references and quantities look like: refused where they are given, not where they would fail."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from longshore.errors import InvalidValue

__all__ = [
    "check_choice",
    "check_digest",
    "check_dns_label",
    "check_env",
    "check_image",
    "check_labels",
    "check_names",
    "check_quantity",
    "check_range",
    "check_registry",
    "check_service_name",
    "check_subdomain",
    "check_uri",
    "freeze",
]

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_QUANTITY: Final = re.compile(r"(\d+(\.\d+)?|\.\d+)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|[eE][-+]?\d+)?")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE: Final = re.compile(
    r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d+)?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")


def check_dns_label(field_name: str, value: str, *, max_length: int = 63) -> None:
    """Refuse what Kubernetes would refuse as a label-style name (RFC 1123).

    Raises:
        InvalidValue: If ``value`` is not a DNS label of at most ``max_length`` characters.
    """
    if not isinstance(value, str) or len(value) > max_length or not _LABEL.fullmatch(value):
        raise InvalidValue(
            field_name,
            value,
            f"use 1 to {max_length} lower-case letters, digits and hyphens, "
            "starting and ending with a letter or digit (RFC 1123 label)",
        )


def check_service_name(field_name: str, value: str, *, max_length: int = 63) -> None:
    """Refuse a name that cannot name a Kubernetes Service (RFC 1035: it starts with a letter)."""
    check_dns_label(field_name, value, max_length=max_length)
    if not _LABEL_1035.fullmatch(value):
        raise InvalidValue(field_name, value, "start with a letter: it names a Kubernetes Service (RFC 1035 label)")


def check_subdomain(field_name: str, value: str) -> None:
    """Refuse what Kubernetes would refuse as the name of a Secret or service account (RFC 1123 subdomain)."""
    if not isinstance(value, str) or len(value) > 253 or not all(_LABEL.fullmatch(part) for part in value.split(".")):
        raise InvalidValue(
            field_name, value, "use lower-case letters, digits, hyphens and dots, at most 253 (RFC 1123 subdomain)"
        )


def check_image(field_name: str, value: str) -> None:
    """Refuse what is no image reference, such as ``registry.example/team/server:1.0``."""
    if not isinstance(value, str) or len(value) > 512 or not _IMAGE.fullmatch(value):
        raise InvalidValue(field_name, value, "use an image reference: [registry[:port]/]path[:tag][@sha256:digest]")


def check_registry(field_name: str, value: str) -> None:
    """Refuse what is no registry, with a path or without: ``registry.example:5000/team``."""
    if not isinstance(value, str) or not _IMAGE.fullmatch(f"{value}/image"):
        raise InvalidValue(field_name, value, "use a registry, and a path in it: registry.example:5000/team")


def check_quantity(field_name: str, value: str) -> None:
    """Refuse what is not a Kubernetes resource quantity, such as ``500m`` or ``1Gi``."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise InvalidValue(field_name, value, 'use a Kubernetes quantity, such as "500m", "2" or "1Gi"')


def check_uri(field_name: str, value: str) -> None:
    """Refuse what is neither a path nor a URI with a scheme; credentials in a URI are refused too."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(field_name, value, "give a path or a URI, such as s3://bucket/models/iris")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise InvalidValue(field_name, value, "control characters are not allowed in a path or URI")
    if "://" not in value:
        return
    scheme, _, rest = value.partition("://")
    if not _SCHEME.fullmatch(scheme):
        raise InvalidValue(field_name, value, "a URI starts with a scheme of letters, such as s3:// or https://")
    if not rest:
        raise InvalidValue(field_name, value, "something must follow the scheme")
    if urlsplit(value).password is not None:
        redacted = re.sub(r"://[^@]*@", "://***@", value)
        raise InvalidValue(field_name, redacted, "no password in a URI: name a Kubernetes Secret instead")


def check_range(field_name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse what is no whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise InvalidValue(field_name, value, f"use a whole number {bound}")


def freeze(owner: object, name: str) -> None:
    """Have a mapping in a field of ``owner`` be one that nobody changes."""
    object.__setattr__(owner, name, MappingProxyType(dict(getattr(owner, name))))


def check_labels(field_name: str, labels: Mapping[str, str], *, values: bool = True) -> None:
    """Refuse keys that Kubernetes would refuse in labels and annotations; of labels, the values too."""
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if not _QUALIFIED.fullmatch(key) or len(name) > 63 or len(prefix) > 253:
            raise InvalidValue(f"{field_name} key", key, "use [prefix/]name with letters, digits, '-', '_' and '.'")
        if not isinstance(value, str):
            raise InvalidValue(f"{field_name}[{key!r}]", value, "use a string")
        if values and (len(value) > 63 or not _LABEL_VALUE.fullmatch(value)):
            raise InvalidValue(f"{field_name}[{key!r}]", value, "use at most 63 letters, digits, '-', '_' and '.'")


def check_names(owner: object, name: str) -> None:
    """Have a field of ``owner`` be a tuple of names of Secrets."""
    names, where = getattr(owner, name), f"{type(owner).__name__}.{name}"
    if isinstance(names, str):
        raise InvalidValue(where, names, "use a list of names")
    for index, value in enumerate(names):
        check_subdomain(f"{where}[{index}]", value)
    object.__setattr__(owner, name, tuple(names))


def check_env(owner: object, name: str) -> None:
    """Have a field of ``owner`` be a frozen mapping of environment variables."""
    where = f"{type(owner).__name__}.{name}"
    for key, value in getattr(owner, name).items():
        if not _ENV_NAME.fullmatch(key):
            raise InvalidValue(f"{where} key", key, "use letters, digits and '_', not starting with a digit")
        if not isinstance(value, str):
            raise InvalidValue(f"{where}[{key!r}]", value, "use a string")
    freeze(owner, name)


def check_digest(field_name: str, value: str) -> None:
    """Refuse what is no SHA-256 digest."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InvalidValue(field_name, value, "use 'sha256:' and 64 lower-case hex digits")


def check_choice(field_name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise InvalidValue(field_name, value, f"use one of {', '.join(choices)}")
