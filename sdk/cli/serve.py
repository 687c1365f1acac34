"""``longshore serve``: the model server in the foreground."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from longshore.cli.app import debug_option
from longshore.cli.names import model_name
from longshore.errors import DeployError
from longshore.spec.checks import check_dns_label
from longshore.spec.service import FRAMEWORKS

if TYPE_CHECKING:
    from longshore.packaging import ModelCard

__all__ = ["serve"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="Name of the model in paths; by default that of the directory.")
@click.option("--framework", type=click.Choice(FRAMEWORKS), default="fastapi", show_default=True, help="Before it.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that answer.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of each worker; not with fastapi.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--token-file", type=_FILE, help="File of the tokens that may ask, one a line.")
@click.option("--access-log", is_flag=True, help="Log a line for each request.")
@click.option("--log-format", type=click.Choice(("text", "json")), default="text", help="Lines of text, or of JSON.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]")
@debug_option
def serve(
    directory: Path,
    more: tuple[str, ...],
    name: str | None,
    framework: str,
    workers: int,
    threads: int | None,
    host: str,
    port: int,
    token_file: Path | None,
    access_log: bool,
    log_format: str,
) -> None:
    """Serve the model in DIRECTORY until Ctrl-C, which lets it answer what has begun.

    OPTIONS are those that only the server itself has, such as --batch-rows 1 or --client-seconds 10: python -m
    longshore.serving --help lists them.
    """
    name = name or model_name(str(directory.resolve()))
    check_dns_label("name", name)
    command = [sys.executable, "-m", "longshore.serving", "--model", str(directory), "--name", name]
    command += ["--revision", f"{name}-local", "--framework", framework, "--workers", str(workers)]
    command += ["--host", host, "--port", str(port), "--log-format", log_format]
    command += [] if threads is None else ["--threads", str(threads)]
    command += [] if token_file is None else ["--token-file", str(token_file)]
    command += ["--access-log"] if access_log else []
    command += more
    reading, writing = os.pipe()
    # a group of its own, so that Ctrl-C reaches this process only, and the server is asked to end
    with subprocess.Popen([*command, "--notify-fd", str(writing)], pass_fds=[writing], process_group=0) as server:
        try:
            os.close(writing)
            with os.fdopen(reading) as told:
                line = told.readline()
            message = json.loads(line) if line else {"state": "failed", "reason": "it ended before it was ready"}
            if message["state"] == "failed":
                server.wait()
                raise DeployError(f"{directory} is not served: {message['reason']}")
            click.echo(_about(directory, name, f"http://{_spoken(host)}:{message['port']}", token_file))
            if server.wait():
                raise DeployError(f"the server of {directory} ended with status {server.returncode}: see its log above")
        except KeyboardInterrupt:
            server.terminate()
            server.wait()


def _spoken(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - it is not listened on here


def _about(directory: Path, name: str, url: str, token_file: Path | None) -> str:
    lines = [f"Serving {directory} at {url}/v1/models/{name}:predict (Ctrl-C ends it)"]
    if (card := _card(directory)) is not None:
        body = json.dumps({"instances": [dict(card.example[0])]})
        words = ["curl", "-H", "Content-Type: application/json", "-d", body, f"{url}/v1/models/{name}:predict"]
        token = ""
        if token_file is not None:
            token = f""" -H "Authorization: Bearer $(grep -m 1 '^[^#]' {shlex.quote(str(token_file))})\""""
        lines.append(f"{shlex.join(words)}{token}")
    return "\n".join(lines)


def _card(directory: Path) -> ModelCard | None:
    """The model's card, or that of the highest version in a directory of several."""
    from longshore.packaging.model import CARD_FILE, read_card

    versions = [path for path in directory.iterdir() if path.name.isdigit() and path.is_dir()]
    for place in (directory, *sorted(versions, key=lambda path: int(path.name), reverse=True)):
        if (place / CARD_FILE).is_file():
            return read_card(place)
    return None
