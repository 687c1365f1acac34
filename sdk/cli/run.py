"""``longshore run``."""

from __future__ import annotations

from typing import Any

import click

from longshore.cli.app import debug_option
from longshore.cli.catalogue import compiled, find_pipeline, json_option, set_option
from longshore.cli.output import echo_json
from longshore.cli.parameters import parameters_of, parse_settings

__all__ = ["run"]


@click.command()
@click.argument("name")
@click.option("--local", "on_this_machine", is_flag=True, help="Run it on this machine.")
@click.option("--host", metavar="URL", help="Run it on the Kubeflow Pipelines at this address.")
@click.option("--namespace", help="Your namespace, where Kubeflow serves several users (with --host).")
@click.option("--experiment", help="Experiment to add the run to (with --host).  [default: Default]")
@click.option("--wait/--no-wait", default=None, help="Follow the run to its end (with --host).  [default: no-wait]")
@click.option("--timeout-seconds", type=click.FloatRange(min=0, min_open=True), help="How long to wait (with --wait).")
@set_option
@click.option("-v", "--verbose", is_flag=True, help="Show what the steps print (with --local).")
@json_option
@debug_option
def run(
    name: str,
    on_this_machine: bool,
    host: str | None,
    namespace: str | None,
    experiment: str | None,
    wait: bool | None,
    timeout_seconds: float | None,
    settings: tuple[str, ...],
    verbose: bool,
    as_json: bool,
) -> int:
    """Run the pipeline NAME, on this machine or on Kubeflow.

    The bearer token for Kubeflow is read from the environment variable LONGSHORE_KFP_TOKEN.
    """
    if on_this_machine == (host is not None):
        raise click.UsageError("say where to run it: --local or --host URL")
    if on_this_machine and any(value is not None for value in (namespace, experiment, wait, timeout_seconds)):
        raise click.UsageError("--namespace, --experiment, --wait and --timeout-seconds go with --host")
    if host is not None and verbose:
        raise click.UsageError("--verbose goes with --local")
    if timeout_seconds is not None and not wait:
        raise click.UsageError("--timeout-seconds goes with --wait")
    if host is None:
        return _run_here(name, settings, verbose=verbose, as_json=as_json)
    pipeline = find_pipeline(name)
    arguments = parse_settings(settings, parameters_of(pipeline))
    return _run_there(
        pipeline,
        arguments,
        host=host,
        namespace=namespace,
        experiment=experiment,
        wait=bool(wait),
        timeout_seconds=timeout_seconds,
        as_json=as_json,
    )


def _run_here(name: str, settings: tuple[str, ...], *, verbose: bool, as_json: bool) -> int:
    from longshore.cli.progress import shown_progress
    from longshore.cli.summary import as_plain, outcome_of, summary
    from longshore.runner.helper import Helper
    from longshore.runner.reports import RunFailed
    from longshore.runner.run import run_pipeline

    try:
        # first of all: it loads what the steps need while kfp is loaded here
        with Helper() as helper:
            pipeline = find_pipeline(name)
            arguments = parse_settings(settings, parameters_of(pipeline))
            with shown_progress() as on_event:
                report = run_pipeline(pipeline, arguments, on_event=on_event, verbose=verbose, helper=helper)
    except RunFailed as failed:
        if as_json:
            echo_json({"outcome": "failed", "error": str(failed), **as_plain(failed.report)})
        raise
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        echo_json({"outcome": outcome_of(report), "error": None, **as_plain(report)})
    else:
        click.echo("\n" + summary(report))
    return 0


def _run_there(
    pipeline: Any,
    arguments: dict[str, Any],
    *,
    host: str,
    namespace: str | None,
    experiment: str | None,
    wait: bool,
    timeout_seconds: float | None,
    as_json: bool,
) -> int:
    from longshore.cli.kubeflow import Kubeflow
    from longshore.runner.run import check_arguments

    given = {name: value for name, value in arguments.items() if value is not None}
    check_arguments(pipeline, given)
    kubeflow = Kubeflow.connect(host, namespace=namespace)
    submitted = kubeflow.submit(compiled(pipeline, {}), given, name=pipeline.name, experiment=experiment)
    # at once, so that the run can be looked up even if waiting for it is interrupted
    click.echo(f"run {submitted.id}\n{submitted.url}", err=as_json)
    result = submitted
    if wait:
        result = kubeflow.follow(
            submitted, on_state=lambda state: click.echo(state, err=True), timeout_seconds=timeout_seconds
        )
    if as_json:
        echo_json(result)
    return kubeflow.check(result)
