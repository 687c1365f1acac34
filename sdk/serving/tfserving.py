"""What is beside TensorFlow Serving in a pod: ``fetch`` brings its models, ``watch`` says whether it has loaded them.

``python -m longshore.serving.tfserving``; longshore.targets.tfserving writes the command lines.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from longshore import storage
from longshore.errors import LongshoreError, ModelError
from longshore.spec import Batching, ModelSource, from_plain

__all__ = ["fetch_models", "main", "watch_versions"]

_MODEL_FILES: Final = ("saved_model.pb", "saved_model.pbtxt")
_PAUSE_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 10.0


def fetch_models(
    models: Sequence[ModelSource],
    folder: Path,
    *,
    labels: Mapping[str, int] | None = None,
    batching: Batching | None = None,
) -> None:
    """Lay models out as TensorFlow Serving wants them, ``<name>/<version>``, with its configuration beside.

    Args:
        models: Versions of one model; the digest of each is checked where it has one.
        folder: Where to.
        labels: Version by label.
        batching: How requests are answered together.

    Raises:
        DigestMismatch: If the files are not those that were recorded; nothing of them is there then.
        ModelError: If something is no SavedModel.
        StorageError: If something cannot be read or written.
    """
    from longshore.errors import DigestMismatch
    from longshore.packaging import ServedModel, config_files
    from longshore.packaging.model import directory_digest

    for model in models:
        with (
            storage.replace_directory(folder / model.name / str(model.version)) as work,
            tempfile.TemporaryDirectory(prefix="longshore-") as scratch,
        ):
            shutil.copytree(storage.fetch_directory(model.uri, Path(scratch)), work, dirs_exist_ok=True)
            # what was copied is what is checked: the source may change meanwhile
            if model.digest is not None and (found := directory_digest(work)) != model.digest:
                raise DigestMismatch(model.uri, model.digest, found)
            if not any((work / name).is_file() for name in _MODEL_FILES):
                raise ModelError(f"{model.uri} has no {_MODEL_FILES[0]}: it is no SavedModel")
        print(f"{model.uri}: fetched as {model.name}, version {model.version}", flush=True)
    served = ServedModel(
        name=models[0].name,
        base_path=str(folder / models[0].name),
        versions=tuple(int(model.version or 0) for model in models),
        labels=labels or {},
    )
    for name, text in config_files([served], batching).items():
        storage.write_file(str(folder / name), text.encode("ascii"))


def watch_versions(
    ask: Callable[[], Mapping[str, Any] | None], name: str, versions: Sequence[int], pause: Callable[[], None]
) -> None:
    """Return once a server says that all versions of a model are available.

    Args:
        ask: Gives its status of the model, None as long as it does not answer.
        name: The model, for messages.
        versions: The versions.
        pause: Called before it is asked again.

    Raises:
        ModelError: If one will not become available; in the server's words.
    """
    while True:
        told = ask() or {}
        states = {int(one["version"]): one for one in told.get("model_version_status", ())}
        for version in versions:
            one = states.get(version, {})
            status = one.get("status") or {}
            if status.get("error_code", "OK") != "OK":
                raise ModelError(
                    f"TensorFlow Serving cannot load {name}, version {version}: {status['error_code']}: "
                    f"{status.get('error_message') or 'no reason given'}"
                )
        if all(states.get(version, {}).get("state") == "AVAILABLE" for version in versions):
            return
        pause()


def _status(url: str) -> Mapping[str, Any] | None:
    """What is answered, an error included; None if nobody answers."""
    import requests

    try:
        answer = requests.get(url, timeout=_TIMEOUT_SECONDS, proxies={"http": ""}).json()
    except (requests.RequestException, ValueError):
        return None
    return answer if isinstance(answer, Mapping) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m longshore.serving.tfserving")
    commands = parser.add_subparsers(required=True)
    fetch = commands.add_parser("fetch")
    fetch.set_defaults(run=_fetch)
    fetch.add_argument("--to", type=Path, required=True)
    fetch.add_argument("--models", type=json.loads, required=True)
    fetch.add_argument("--labels", type=json.loads, default={})
    fetch.add_argument("--batching", type=json.loads)
    watch = commands.add_parser("watch")
    watch.set_defaults(run=_watch)
    watch.add_argument("--url", required=True)
    watch.add_argument("--name", required=True)
    watch.add_argument("--versions", required=True)
    watch.add_argument("--done", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except LongshoreError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def _fetch(given: argparse.Namespace) -> None:
    fetch_models(
        [from_plain(ModelSource, one) for one in given.models],
        given.to,
        labels={label: int(version) for label, version in given.labels.items()},
        batching=None if given.batching is None else from_plain(Batching, given.batching),
    )


def _watch(given: argparse.Namespace) -> None:
    given.done.unlink(missing_ok=True)
    url = f"{given.url}/v1/models/{given.name}"
    versions = [int(version) for version in given.versions.split(",")]
    watch_versions(lambda: _status(url), given.name, versions, lambda: time.sleep(_PAUSE_SECONDS))
    given.done.touch()
    # a container that ends is started again; this one takes less memory than Python
    os.execvp("sleep", ["sleep", "infinity"])  # noqa: S606, S607


if __name__ == "__main__":
    sys.exit(main())
