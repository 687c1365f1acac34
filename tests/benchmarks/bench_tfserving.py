"""TensorFlow Serving that runs: how long a version takes to be switched, and to be packaged.

Switch: from the order until the other version has loaded, has answered its example rows and has the label, by
``longshore.tfserving``; the peer is what the server itself takes to load the version that it is told, as seen by asking
for its status all the time. The way back to a version that stayed loaded is a row of its own. The server is the tests'
stand-in, on the real TensorFlow.

Packaging: ``package_tensorflow`` with digests checked before and after; the peer is a plain copy of the folder.

Needs the environment of the tests with frameworks, which ``make frameworks`` installs.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rows import Row, alone, compare

from longshore.packaging import ServedModel, config_files, package_tensorflow
from longshore.spec import ModelSource
from longshore.tfserving import TensorFlowServing, switch_version

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "integration" / "parts" / "tensorflow" / "server.py"
RUNS = 5
PEER = "the server's load alone"


def bench() -> list[Row]:
    """All rows."""
    made = subprocess.run([ROOT / "tools" / "peer.sh", "frameworks"], check=True, capture_output=True, text=True)
    python = Path(made.stdout.strip()) / "python"
    subprocess.run([ROOT / "tools" / "layout.sh"], check=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        models = _models(python, place)
        packaged, packaging = _packaging(models, place)
        return [*_switching(python, packaged, place), *packaging]


def _models(python: Path, place: Path) -> list[ModelSource]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build" / "layout")}
    command = [python, Path(__file__).parent / "peers" / "saved_models.py", place / "trained"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [
        ModelSource(
            uri=str(place / "trained" / version), format="tensorflow", name="half", version=version, digest=digest
        )
        for version, digest in zip("12", done.stdout.split(), strict=True)
    ]


def _packaging(models: list[ModelSource], place: Path) -> tuple[list[ModelSource], list[Row]]:
    ours, theirs, packaged = [], [], []
    for number in range(RUNS):
        began = time.perf_counter()
        packaged = [
            package_tensorflow(model, str(place / f"store{number}"), name="half", version=str(model.version))
            for model in models
        ]
        ours.append((time.perf_counter() - began) / len(models))
        began = time.perf_counter()
        for model in models:
            shutil.copytree(model.uri, place / f"copy{number}" / str(model.version))
        theirs.append((time.perf_counter() - began) / len(models))
    sizes = [[_size(Path(where))] for where in (packaged[0].uri, models[0].uri)]
    return packaged, [
        compare("package a SavedModel, digests checked", "s", ours, "plain copy", theirs),
        compare("size of the package", "MB", sizes[0], "the model", sizes[1], ratio_at_most=1.01),
    ]


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _switching(python: Path, models: list[ModelSource], place: Path) -> list[Row]:
    switched, back, loads = [], [], []
    served = ServedModel(name="half", base_path=str(Path(models[0].uri).parent), versions=(2,))
    with _server(python, place / "server") as address, TensorFlowServing(address) as server:
        for _ in range(RUNS):
            server.configure([])
            switch_version([address], models[0])
            switched.append(switch_version([address], models[1]).seconds)
            back.append(switch_version([address], models[0]).seconds)
            server.configure([])
            began = time.perf_counter()
            server.configure([served])
            while not any((one.version, one.state) == (2, "AVAILABLE") for one in server.status("half")):
                pass
            loads.append(time.perf_counter() - began)
    return [
        compare("switch a running TensorFlow Serving to another version, tried first", "s", switched, PEER, loads),
        alone("the way back, to a version that stayed loaded, tried first", "s", back),
    ]


@contextlib.contextmanager
def _server(python: Path, folder: Path) -> Iterator[str]:
    """A server without a model: its address over gRPC."""
    folder.mkdir()
    for name, text in config_files([]).items():
        (folder / name).write_text(text)
    command: list[Any] = [python, SERVER, f"--model_config_file={folder}/models.config", "--max_num_load_retries=0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{json.loads(process.stdout.readline())['grpc']}"
        finally:
            process.kill()
