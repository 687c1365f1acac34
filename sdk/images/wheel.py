"""Longshore itself as a wheel: made of the files that run now, whether they were installed or lie in a checkout.

So an image gets the very code that builds it, with no release to be found anywhere. The same files give the same
bytes, which keeps the layers of images.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from longshore._version import __version__
from longshore.errors import ConfigError

__all__ = ["WHEEL", "wheel"]

WHEEL: Final = f"longshore-{__version__}-py3-none-any.whl"
"""Name of its file."""

_INFO: Final = f"longshore-{__version__}.dist-info"
_PACKAGES: Final = ("longshore", "longshore.components", "longshore.pipelines")
_FORMAT: Final = "Wheel-Version: 1.0\nGenerator: longshore\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel() -> bytes:
    """The wheel's content.

    Raises:
        ConfigError: If what is installed is of another version than the files that run.
    """
    files = {**dict(_sources()), **_info()}
    record = "".join(f"{name},{_digest(content)},{len(content)}\n" for name, content in sorted(files.items()))
    files[f"{_INFO}/RECORD"] = f"{record}{_INFO}/RECORD,,\n".encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        # the metadata last, as the format advises
        for name in sorted(files, key=lambda name: (name.startswith(_INFO), name)):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return made.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ConfigError(f"the package {package} is not there: install longshore anew")
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            place = path.relative_to(root)
            if path.is_file() and "__pycache__" not in place.parts and not path.name.startswith("."):
                yield f"{package.replace('.', '/')}/{place.as_posix()}", path.read_bytes()


def _info() -> Mapping[str, bytes]:
    # a checkout has what its last build left behind as well
    found = sorted(metadata.distributions(name="longshore"), key=lambda one: one.read_text("METADATA") is None)
    installed = next(iter(found), None)
    if installed is None or installed.version != __version__:
        what = "nothing is" if installed is None else f"{installed.version} is"
        raise ConfigError(
            f"these are the files of longshore {__version__}, and {what} installed: install longshore anew, such as "
            "by pip install -e ."
        )
    texts = {
        "METADATA": installed.read_text("METADATA") or installed.read_text("PKG-INFO"),
        "WHEEL": _FORMAT,
        "entry_points.txt": installed.read_text("entry_points.txt"),
        "licenses/LICENSE": installed.read_text("licenses/LICENSE"),
    }
    return {f"{_INFO}/{name}": text.encode() for name, text in texts.items() if text is not None}


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
