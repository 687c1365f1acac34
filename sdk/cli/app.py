"""The command's frame: subcommands, errors told as one message, exit status."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from longshore._version import __version__
from longshore.errors import ConfigError, LongshoreError

__all__ = ["cli", "debug_option", "run"]

INTERRUPTED: Final = 130

_COMMANDS: Final = {
    "run": ("longshore.cli.run", "Run a pipeline, on this machine or on Kubeflow."),
    "pipelines": ("longshore.cli.catalogue", "List the pipelines."),
    "components": ("longshore.cli.catalogue", "List the components, or describe one."),
    "compile": ("longshore.cli.catalogue", "Write a pipeline or component as Kubeflow YAML."),
    "local": ("longshore.cli.local", "Look after the servers on this machine."),
    "serve": ("longshore.cli.serve", "Serve a model on this machine, in the foreground."),
    "fleet": ("longshore.cli.fleet", "Serve many models at once on Seldon Core 2."),
    "predict": ("longshore.cli.predict", "Ask a service for predictions."),
    "promote": ("longshore.cli.traffic", "Move requests of a service to the revision deployed last."),
    "rollback": ("longshore.cli.traffic", "Serve again what a service served before."),
    "django": ("longshore.cli.django", "Users, tokens and log of the model server's Django face."),
    "image": ("longshore.cli.image", "Build container images."),
    "rbac": ("longshore.cli.rbac", "Write the Role that a deploying step needs."),
    "runtime": ("longshore.cli.runtime", "Write KServe's runtime for what longshore has packaged."),
    "doctor": ("longshore.cli.doctor", "Say what is missing for what, and how to get it."),
}


class _Commands(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta["longshore.debug"] = ctx.meta.get("longshore.debug", False) or value


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--debug``, so that it may stand before or after the command's name."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="longshore", message="%(prog)s %(version)s")
@debug_option
def cli() -> None:
    """Train, validate, register, deploy and monitor models with Kubeflow pipelines."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry a command out and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # a job that is cancelled should put things in order as one that is interrupted by hand
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return cli.main(args=words, prog_name="longshore", standalone_mode=False) or 0
    except BaseException as error:  # noqa: BLE001 - the last place where an error can be told
        return _tell(error, debug="--debug" in words)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # nobody reads on; keep the interpreter from trying again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debug:
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, LongshoreError):
        click.echo(f"longshore: {error}", err=True)
        return 2 if isinstance(error, ConfigError) else 1
    click.echo(f"longshore: {type(error).__name__}: {error}\n(--debug shows where)", err=True)
    return 1
