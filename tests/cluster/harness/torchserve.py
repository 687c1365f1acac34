"""Packages for TorchServe, laid out as its own archiver does, which is too large to be installed beside these tests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from longshore.packaging import Workers, read_card, save_files
from longshore.packaging.torchserve import CONFIG_FILE, STORE, config_properties, model_config
from longshore.spec import ModelSource

__all__ = ["make_package"]

_HANDLER = """
from longshore.serving.torchserve_handler import TabularHandler


class Handler(TabularHandler):
    pass
"""


def make_package(model: ModelSource, folder: Path, version: str, files: Mapping[str, str] | None = None) -> ModelSource:
    """A package of a model that lies on this machine.

    Args:
        model: The model.
        folder: Where to put it.
        version: Version that it gets.
        files: Files of the archive that are others than usual.
    """
    source, archive = Path(model.uri), f"{model.name}-{version}.mar"
    described = {"modelName": model.name, "modelVersion": version, "handler": "handler.py"}
    manifest = {"runtime": "python", "model": {**described, "configFile": "model-config.yaml"}}
    content: dict[str, str | bytes] = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest),
        "handler.py": _HANDLER,
        "model-config.yaml": model_config(Workers(), model.digest or ""),
        **{f"model/{path.name}": path.read_bytes() for path in source.iterdir()},
        **(files or {}),
    }

    def write(work: Path) -> None:
        (work / CONFIG_FILE).parent.mkdir()
        (work / CONFIG_FILE).write_text(config_properties({model.name: {version: archive}}, Workers()))
        (work / STORE).mkdir()
        with zipfile.ZipFile(work / STORE / archive, "w") as packed:
            for name, data in content.items():
                packed.writestr(name, data)

    digest = save_files(folder, write, replace(read_card(source), format="torchserve"))
    return ModelSource(uri=str(folder), format="torchserve", name=model.name, digest=digest)
