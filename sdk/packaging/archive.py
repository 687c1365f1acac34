"""TorchServe's model archives (``.mar``): made by its own archiver, alike for the same model, and read with care."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from longshore.errors import InvalidValue, MissingExtra, ModelError
from longshore.packaging.card import Signature
from longshore.spec.checks import check_dns_label

__all__ = ["HANDLERS", "MODEL_FOLDER", "ArchiveInfo", "handler_of", "inspect_archive", "make_archive", "unpack_model"]

HANDLERS: Final[Mapping[str, str]] = {
    "tabular": "TabularHandler",
    "image": "ImageHandler",
    "text": "TextHandler",
}
"""The handlers by what a request may be beside JSON; :mod:`longshore.serving.torchserve_handler` has them."""

MODEL_FOLDER: Final = "model"
"""Where the model directory lies in the archive."""

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_HANDLER: Final = """# What answers is in longshore, which has to be installed beside TorchServe.
from longshore.serving.torchserve_handler import {name}


class Handler({name}):
    \"\"\"Checks requests and predicts as every server of longshore does.\"\"\"
"""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MOST_BYTES: Final = 2**36


@dataclass(frozen=True, kw_only=True)
class ArchiveInfo:
    """What an archive says of itself.

    Args:
        name: Name that the model is registered under, unless another is asked for.
        version: Its version.
        handler: Its handler's file, or the name of one of TorchServe's own.
        files: All files in it.
        digest: Digest of the model directory in it, which longshore's handlers check; None in others' archives.
    """

    name: str
    version: str
    handler: str
    files: tuple[str, ...]
    digest: str | None = None


def handler_of(signature: Signature) -> str:
    """The handler for a model: the one whose raw requests are its only column, if there is such."""
    if len(signature.inputs) == 1 and signature.inputs[0].kind in HANDLERS:
        return signature.inputs[0].kind
    return "tabular"


def make_archive(
    model: Path,
    target: Path,
    *,
    name: str,
    version: str,
    handler: str,
    config: str,
    requirements: Sequence[str] = (),
) -> None:
    """Put a model directory into an archive. The same model gives the same bytes.

    Args:
        model: The directory, which has been verified.
        target: The archive to write.
        name: Name of the model.
        version: Its version.
        handler: One of :data:`HANDLERS`.
        config: The model's configuration, YAML.
        requirements: What TorchServe is to install for this model, if it is told to install anything.

    Raises:
        MissingExtra: If torch-model-archiver is not installed.
        ModelError: If it fails.
    """
    check_dns_label("name", name)
    if handler not in HANDLERS:
        raise InvalidValue("handler", handler, f"use one of {', '.join(HANDLERS)}")
    if importlib.util.find_spec("model_archiver") is None:
        raise MissingExtra("packaging for TorchServe", "model_archiver", "torchserve")
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        work = Path(scratch)
        (work / "stage").mkdir()
        (work / "out").mkdir()
        (work / "tmp").mkdir()
        # of a folder that it is given the archiver takes what is in it
        (work / "stage" / MODEL_FOLDER).symlink_to(model.absolute(), target_is_directory=True)
        (work / "handler.py").write_text(_HANDLER.format(name=HANDLERS[handler]), encoding="utf-8")
        (work / "model-config.yaml").write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name, "--version", version]
        command += ["--handler", "handler.py", "--extra-files", "stage", "--config-file", "model-config.yaml"]
        if requirements:
            (work / "requirements.txt").write_text("\n".join([*requirements, ""]), encoding="utf-8")
            command += ["--requirements-file", "requirements.txt"]
        # it makes a folder with the model's name in the place for temporary files, and first deletes what is there
        environment = {**os.environ, "TMPDIR": str(work / "tmp")}
        done = subprocess.run(
            [*command, "--export-path", "out"], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        made = work / "out" / f"{name}.mar"
        if done.returncode or not made.is_file():
            raise ModelError(f"torch-model-archiver could not package {model}: {_last_line(done.stderr)}")
        _settle(made, target)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _settle(made: Path, target: Path) -> None:
    """Write an archive without the times of its making."""
    with zipfile.ZipFile(made) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as settled:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            if name == _MANIFEST:
                manifest = {key: value for key, value in json.loads(content).items() if key != "createdOn"}
                content = json.dumps(manifest, indent=2, sort_keys=True).encode()
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            settled.writestr(entry, content)


def inspect_archive(path: Path) -> ArchiveInfo:
    """Look into an archive without unpacking it, and refuse one that is not to be unpacked.

    Raises:
        ModelError: If it is no archive of a model, or holds paths that climb out, links, or more than fits a disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(path, entries)
            manifest: Any = json.loads(archive.read(_MANIFEST))
            model = manifest["model"]
            config = yaml.safe_load(archive.read(model["configFile"])) if model.get("configFile") else None
        return ArchiveInfo(
            name=str(model["modelName"]),
            version=str(model.get("modelVersion", "1.0")),
            handler=str(model["handler"]),
            files=tuple(entry.filename for entry in entries if not entry.is_dir()),
            digest=_digest_in(config),
        )
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{path} is no archive that TorchServe can read: {error}") from error
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{path} is no model archive: its {_MANIFEST} is missing or says too little") from error


def unpack_model(path: Path, folder: Path) -> Path:
    """Take the model directory out of an archive.

    Args:
        path: The archive.
        folder: Where to put it.

    Returns:
        The model directory.

    Raises:
        ModelError: If the archive is not to be unpacked, or holds no model of longshore's.
    """
    inside = [name for name in inspect_archive(path).files if name.startswith(f"{MODEL_FOLDER}/")]
    if not inside:
        raise ModelError(f"{path} holds no model directory of longshore's: only TorchServe can serve it")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder, inside)
    return folder / MODEL_FOLDER


def _digest_in(config: Any) -> str | None:
    handler = config.get("handler") if isinstance(config, dict) else None
    digest = handler.get("digest") if isinstance(handler, dict) else None
    return digest if isinstance(digest, str) else None


def _check(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    for entry in entries:
        name = entry.filename
        climbs = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if climbs or "\\" in name or ":" in name or "\0" in name:
            raise ModelError(f"{path} holds the path {name!r}, which leads out of it: it is not to be unpacked")
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            raise ModelError(f"{path} holds the link {name!r}: it is not to be unpacked")
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise ModelError(f"{path} would take more than {_MOST_BYTES} bytes: it is not to be unpacked")
