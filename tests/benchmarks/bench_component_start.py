"""What a pod does before a component's body runs: the compiled command, against kfp's defaults.

The command of each compiled component runs as it stands, with ``python3`` and ``pip`` on the path recorded. The
library's component runs in this environment, which has what the library's image has; kfp's default runs in a new
virtual environment that has pip and nothing else, like ``python:3.11``, and without pip's cache, like a new pod.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp import dsl
from rows import Row, compare

from longshore.authoring import component

RUNS = 3
PEER = "kfp defaults"


def double(number: int) -> int:
    """The smallest body."""
    return 2 * number


def compiled_command(built: Any, output: Path) -> list[str]:
    """The container's command with the placeholder filled in, as the launcher does."""
    executor = json_format.MessageToDict(built.pipeline_spec)["deploymentSpec"]["executors"]["exec-double"]
    inputs = {
        "inputs": {"parameterValues": {"number": 21}},
        "outputs": {"parameters": {"Output": {"outputFile": f"{output}/Output"}}, "outputFile": f"{output}/out.json"},
    }
    container = executor["container"]
    return [part.replace("{{$}}", json.dumps(inputs)) for part in (*container["command"], *container.get("args", []))]


def recorded_path(folder: Path, programs: Mapping[str, Path]) -> str:
    """A PATH whose programs write their arguments to ``calls`` before they run."""
    for name, program in programs.items():
        shim = folder / name
        shim.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\nexec "{program}" "$@"\n')
        shim.chmod(0o755)
    return f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


def start(built: Any, interpreter: Path) -> tuple[float, int]:
    """Seconds until the component is done, and how often pip was called."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = interpreter.parent / "pip"
        path = recorded_path(folder, {"python3": interpreter, "python": interpreter, "pip": pip, "pip3": pip})
        environment = {"PATH": path, "HOME": name, "TMPDIR": name, "PIP_NO_CACHE_DIR": "1", **_index()}
        began = time.perf_counter()
        subprocess.run(compiled_command(built, folder), env=environment, check=True, capture_output=True, cwd=name)
        seconds = time.perf_counter() - began
        assert json.loads((folder / "out.json").read_text())["parameterValues"] == {"Output": 42}
        calls = (folder / "calls").read_text().splitlines()
        return seconds, sum(call.startswith("pip") or "-m pip" in call for call in calls)


def _index() -> dict[str, str]:
    """The settings of this machine that say where packages come from."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_INDEX")
        or name.lower().endswith("_proxy")
        or name in ("PIP_CERT", "PIP_CONFIG_FILE", "PIP_TRUSTED_HOST", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    }


def start_of_default(built: Any) -> tuple[float, int]:
    """The same in a new environment."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=True)
        return start(built, Path(name) / "bin" / "python3")


def bench() -> list[Row]:
    """Calls of pip, and time until the component is done."""
    here = Path(sys.executable)
    ours, theirs = component(double), dsl.component(double, base_image="python:3.11")
    start(ours, here)
    pairs = [(start(ours, here), start_of_default(theirs)) for _ in range(RUNS)]
    return [
        compare(
            "pip calls when a component starts",
            "calls",
            [mine[1] for mine, _ in pairs],
            PEER,
            [other[1] for _, other in pairs],
            at_most=0,
        ),
        compare("component start to end", "s", [mine[0] for mine, _ in pairs], PEER, [other[0] for _, other in pairs]),
    ]
