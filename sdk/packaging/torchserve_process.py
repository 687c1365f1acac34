"""TorchServe in a container: started, watched until its models answer, and ended with what it says itself.

TorchServe by itself goes on without its models: a worker that cannot load one is started again and again, whoever looks
at the process sees that it runs, and the reason stands in a file. Here the process ends with that reason as its last
words, so that whatever started it can tell. Its launcher leaves Java behind when it is ended; here both are.

The file is copied into containers that have TorchServe and not longshore, so it takes nothing but Python's own modules,
of Python 3.9 and later.

Source: github.com/pytorch/serve (ts/model_server.py, docs/management_api.md; v0.12.0).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["last_error", "last_warning", "main", "read_properties", "traceback_in", "worker_died"]

_POLL_SECONDS = 0.5
_WATCH_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0
_WORDS_SECONDS = 60.0
"""It stops reading what a worker says as soon as that has died, and may miss why: the next one says it again."""

_STOP_SECONDS = 20.0
_SAID = re.compile(r".*?(\S+) MODEL_LOG - (.*)")
"""A worker's stream, and what the worker says there."""

_BAD = re.compile(r"\[(WARN|ERROR|FATAL) *\]|^Error|^Invalid|Exception")
_ERROR = re.compile(r"[A-Za-z_][\w.]*(:|$)")
"""How the last line of a traceback begins: the class of the error."""

_WRAPPED = re.compile(r"RuntimeError: \d{3} - ")
"""What a worker ends with once it has written down the error."""

_DIED = "Backend worker process died"
_UNLOADED = "Failed to load model"


class Failed(Exception):
    """TorchServe does not serve what it should; says why, the worker's traceback first."""


def last_error(logs: Path) -> str | None:
    """The last error of its workers, in their own words; None if there is none.

    Args:
        logs: Where it writes its logs.
    """
    traceback = _last_traceback(logs)
    return None if traceback is None else traceback.splitlines()[-1]


def last_warning(lines: Sequence[str]) -> str:
    """The last line in which it warns or fails, or its last one of all."""
    bad = [line for line in lines if _BAD.search(line)]
    return (bad or list(lines) or ["it said nothing"])[-1].strip()


def traceback_in(lines: Sequence[str]) -> str | None:
    """The last traceback of a worker that says why, with the error at its end; None if there is none that is whole.

    TorchServe stops to read in the midst of one when the worker has died by then, and what it writes down of several
    workers and of its own comes line by line among each other.
    """
    begun: dict[str, list[str]] = {}
    whole: list[list[str]] = []
    for line in lines:
        if (said := _SAID.match(line)) is None:
            continue
        worker, words = said.groups()
        if words.startswith("Traceback (most recent call last)"):
            begun[worker] = [words]
        elif worker in begun and words.startswith((" ", "\t")):
            begun[worker].append(words)
        elif worker in begun and words:
            traceback = [*begun.pop(worker), words.strip()]
            if _ERROR.match(words):
                whole.append(traceback)
    if begun or not whole:
        # one that has begun is being written just now
        return None
    why = [traceback for traceback in whole if not _WRAPPED.match(traceback[-1])]
    return "\n".join((why or whole)[-1])


def worker_died(logs: Path) -> bool:
    """Whether a worker has ended by itself."""
    return any(_DIED in line for line in _lines(logs / "ts_log.log"))


def read_properties(text: str) -> dict[str, str]:
    """Keys and values of a file of properties, as far as TorchServe's launcher reads it itself: no escapes."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, found, value in pairs if found}


def _last_traceback(logs: Path) -> str | None:
    for name in ("model_log.log", "ts_log.log"):
        if told := traceback_in(_lines(logs / name)):
            return told
    return None


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace").splitlines()
    return []


class _Server:
    """The process, and what it says of itself."""

    def __init__(self, config: Path, properties: Mapping[str, str], folder: Path, without: Sequence[str] = ()) -> None:
        self.logs = folder / "logs"
        self._management = properties["management_address"]
        self._expected = _models(properties)
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "TEMP": str(folder / "tmp"),
            "LOG_LOCATION": str(self.logs),
            "METRICS_LOCATION": str(self.logs),
        }
        for key in without:
            # a variable would count for more than the file
            environment.pop(f"TS_{key.upper()}", None)
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        self.process = subprocess.Popen(
            [*command, "--model-store", properties["model_store"], "--ts-config", str(config)],
            cwd=folder,
            env=environment,
            # the group is ended together: the launcher, Java and its workers
            start_new_session=True,
        )

    def check(self) -> None:
        """Raise if it has ended."""
        if (status := self.process.poll()) is not None:
            raise self._failed(f"TorchServe ended with status {status}")

    def await_models(self) -> None:
        """Wait until each model has a worker that has loaded it."""
        deadline: float | None = None
        while True:
            self.check()
            workers = self._workers()
            if workers is not None:
                self._check_registered(workers)
                if all("READY" in states for states in workers.values()):
                    return
            if deadline is None and worker_died(self.logs):
                deadline = time.monotonic() + _WORDS_SECONDS
            if deadline is not None and (_last_traceback(self.logs) or time.monotonic() > deadline):
                raise self._failed(f"TorchServe cannot load {', '.join(workers or self._expected)}")
            time.sleep(_POLL_SECONDS)

    def watch(self, tell: Callable[[bool], None]) -> None:
        """Return never; raise once a model has had no worker for a while.

        TorchServe's own word is not taken for it: for five minutes it calls itself healthy without any worker.

        Args:
            tell: Is told whether all models answer, again and again.
        """
        well = time.monotonic()
        while True:
            self.check()
            workers = self._workers()
            missing = [name for name, states in (workers or {}).items() if "READY" not in states]
            tell(bool(workers) and not missing)
            if workers and not missing:
                well = time.monotonic()
            elif time.monotonic() - well > _PATIENCE_SECONDS:
                what = f"has no worker for {', '.join(missing)}" if missing else "does not answer"
                raise self._failed(f"TorchServe {what} since {_PATIENCE_SECONDS:g} s")
            time.sleep(_WATCH_SECONDS)

    def stop(self) -> None:
        """End it, with its workers."""
        deadline = time.monotonic() + _STOP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                self.process.poll()
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _workers(self) -> dict[str, list[str]] | None:
        """States of the workers by model and version; None as long as it does not answer."""
        listed = _get(f"{self._management}/models?limit=1000")
        if listed is None:
            return None
        found: dict[str, list[str]] = {}
        for model in listed.get("models") or ():
            name = model["modelName"]
            for version in _get(f"{self._management}/models/{name}/all") or ():
                if version.get("minWorkers", 1):
                    states = [worker.get("status") for worker in version.get("workers") or ()]
                    found[f"{name}, version {version.get('modelVersion')}"] = states
        return found

    def _check_registered(self, workers: Mapping[str, object]) -> None:
        """What it could not read it leaves out, and starts without."""
        left_out = [line for line in _lines(self.logs / "ts_log.log") if _UNLOADED in line]
        if left_out or not workers:
            raise self._failed(f"TorchServe has not taken {', '.join(self._expected) or 'any model'}")

    def _failed(self, what: str) -> Failed:
        """What is wrong, with why; what reads the end of it reads that."""
        traceback = _last_traceback(self.logs)
        if traceback is None:
            return Failed(f"{what}: {last_warning(_lines(self.logs / 'ts_log.log'))}")
        return Failed(f"{traceback}\n{what}: {traceback.splitlines()[-1]}")


class _State:
    """Whether all models answer, for whoever asks."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._ready = False

    def tell(self, ready: bool) -> None:
        self._ready = ready
        if self._file is not None:
            self._file.touch() if ready else self._file.unlink(missing_ok=True)

    def answer(self, port: int) -> None:
        """Answer on a port of loopback, as long as the process lives."""
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if state._ready else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """It is asked every second."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _models(properties: Mapping[str, str]) -> list[str]:
    return [name for name in properties.get("load_models", "").split(",") if name]


def _get(url: str) -> Any:
    """JSON that is answered, of whatever status; None if there is none."""
    # what is asked is on loopback: no proxy has a say
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error, contextlib.suppress(ValueError, OSError):
            return json.load(error)
    except (OSError, ValueError):
        pass
    return None


def _written(config: Path, changes: Sequence[str], folder: Path) -> tuple[Path, dict[str, str]]:
    """The configuration with the changes, in a file of its own; a change to nothing leaves a property out."""
    keys = {_key(change) for change in changes}
    lines = config.read_text(encoding="latin-1").splitlines()
    kept = [line for line in lines if line.partition("=")[0].strip() not in keys]
    text = "\n".join([*kept, *(change for change in changes if not change.endswith("=")), ""])
    path = folder / "config.properties"
    path.write_text(text, encoding="latin-1")
    return path, read_properties(text)


def _key(change: str) -> str:
    return change.partition("=")[0]


def _told(path: str | None, words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    if path is not None:
        # as much as Kubernetes reads
        with contextlib.suppress(OSError):
            Path(path).write_text(words[-4000:], encoding="utf-8")


def _ended(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run TorchServe until it is told to end, or does not serve its models.

    Args:
        arguments: The command line; None is that of this process.

    Returns:
        0 if it was told to end, 1 if it failed.
    """
    parser = argparse.ArgumentParser(description="Run TorchServe, and end with its own words if it does not serve.")
    parser.add_argument("--ts-config", type=Path, required=True, help="its config.properties")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a property; none without VALUE"
    )
    parser.add_argument("--ready-file", type=Path, help="is there once all models answer, as long as they do")
    parser.add_argument("--health-port", type=int, help="on loopback, 200 is answered there as long as they do")
    parser.add_argument("--words-file", help="is written with the reason of a failure")
    # what KServe's runtime tells TorchServe itself goes for this one
    options, _ = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, _ended)
    with tempfile.TemporaryDirectory(prefix="torchserve-") as scratch:
        folder = Path(scratch)
        state = _State(options.ready_file)
        # a file may be there of one that was killed
        state.tell(False)
        if options.health_port is not None:
            state.answer(options.health_port)
        try:
            config, properties = _written(options.ts_config, options.set, folder)
            server = _Server(config, properties, folder, [_key(change) for change in options.set])
        except (OSError, KeyError) as error:
            _told(options.words_file, f"{options.ts_config} is no configuration of TorchServe: {error!r}")
            return 1
        try:
            server.await_models()
            server.watch(state.tell)
        except Failed as error:
            # what ends before it logs anything has said why on its output, which Kubernetes reads where this is empty
            _told(options.words_file if server.logs.exists() else None, str(error))
            return 1
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            state.tell(False)
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
