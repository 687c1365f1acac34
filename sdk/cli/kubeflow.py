"""Hand a pipeline to Kubeflow Pipelines and follow the run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from longshore.errors import ConfigError, LongshoreError

__all__ = ["TOKEN_ENV", "Kubeflow", "KubeflowError", "Run"]

TOKEN_ENV: Final = "LONGSHORE_KFP_TOKEN"  # noqa: S105 - the variable's name

# kfp's own wait does not know that a cancelled run is over
_ENDED: Final = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_ATTEMPTS: Final = 5
_TIMEOUT_SECONDS: Final = 10.0


class KubeflowError(LongshoreError):
    """Kubeflow Pipelines could not be reached, refused a request, or the run did not succeed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on Kubeflow.

    Args:
        id: The run's id.
        url: Its page in the Kubeflow UI.
        state: Kubeflow's word for its state, None before it was asked for.
        failed: Names of the tasks that failed.
        error: What Kubeflow says of the failure.
    """

    id: str
    url: str
    state: str | None = None
    failed: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Kubeflow:
    """A Kubeflow Pipelines that answers.

    Args:
        host: Its address.
        namespace: The user's namespace, None where there is only one user.
        client: The ``kfp.Client``.
    """

    host: str
    namespace: str | None
    client: Any

    @classmethod
    def connect(cls, host: str, *, namespace: str | None = None) -> Kubeflow:
        """Connect to the API at ``host``.

        Raises:
            ConfigError: If the address is no URL, or the server needs a namespace.
            KubeflowError: If nothing answers there, it is no Kubeflow Pipelines, or it does not let us in.
        """
        if not host.startswith(("http://", "https://")):
            raise ConfigError(f"--host {host}: write the address with http:// or https://")
        address = host.rstrip("/")
        token = os.environ.get(TOKEN_ENV) or None
        if _health(address, token).get("multi_user") and namespace is None:
            raise ConfigError(f"{address} serves several users: name yours with --namespace")
        from kfp import Client

        with _kfp_errors(address, namespace), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            client = Client(host=address, existing_token=token, **({"namespace": namespace} if namespace else {}))
        return cls(address, namespace, client)

    def submit(self, package: str, arguments: Mapping[str, Any], *, name: str, experiment: str | None) -> Run:
        """Start a run of a compiled pipeline.

        Raises:
            KubeflowError: If it was refused, with the server's reason.
        """
        with (
            tempfile.TemporaryDirectory(prefix="longshore-") as folder,
            _kfp_errors(self.host, self.namespace),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            path = Path(folder) / "pipeline.yaml"
            path.write_text(package, encoding="utf-8")
            run = self.client.create_run_from_pipeline_package(
                str(path),
                arguments=dict(arguments),
                run_name=f"{name} {time.strftime('%Y-%m-%d %H-%M-%S')}",
                experiment_name=experiment,
                namespace=self.namespace,
            )
        return Run(id=run.run_id, url=f"{self.host}/#/runs/details/{run.run_id}")

    def follow(self, run: Run, *, on_state: Callable[[str], None], timeout_seconds: float | None = None) -> Run:
        """Wait for the end of a run. The API offers nothing to watch, so it is asked again and again.

        Args:
            run: The run.
            on_state: Called with every new state, in Kubeflow's words.
            timeout_seconds: How long to wait; None for as long as it takes.

        Raises:
            KubeflowError: If the time is over (the run goes on), or the server does not answer any more.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = _FIRST_PAUSE
        while True:
            now = self._look_up(run)
            if now.state != run.state:
                on_state(now.state or "PENDING")
            run = now
            if run.state in _ENDED:
                return run
            if deadline is not None and time.monotonic() + pause > deadline:
                raise KubeflowError(f"run {run.id} is {run.state} after {timeout_seconds:g} s and goes on: {run.url}")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _look_up(self, run: Run) -> Run:
        from urllib3.exceptions import HTTPError

        with _kfp_errors(self.host, self.namespace):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    found = self.client.get_run(run.id)
                except HTTPError:
                    if attempt == _ATTEMPTS:
                        raise
                    time.sleep(attempt * _FIRST_PAUSE)
                else:
                    break
        error = found.error.message if found.error else None
        return replace(run, state=found.state, failed=_failed_tasks(found), error=error)

    def check(self, run: Run) -> int:
        """The exit status for a run: 0 if it succeeded or was not waited for.

        Raises:
            KubeflowError: If it failed or was cancelled.
        """
        if run.state == "FAILED":
            tasks = f" in {', '.join(run.failed)}" if run.failed else ""
            why = f": {run.error}" if run.error else ""
            raise KubeflowError(f"run {run.id} failed{tasks}{why}. Its logs: {run.url}")
        if run.state == "CANCELED":
            raise KubeflowError(f"run {run.id} was cancelled: {run.url}")
        return 0


def _failed_tasks(run: Any) -> tuple[str, ...]:
    """The tasks that failed themselves; those around them (the pipeline, its groups) fail with them."""
    details = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in details if task.state == "FAILED"]
    around = {task.parent_task_id for task in failed if task.parent_task_id}
    inner = [task for task in failed if task.task_id not in around] or failed
    return tuple(dict.fromkeys(task.display_name for task in inner if task.display_name))


def _health(address: str, token: str | None) -> dict[str, Any]:
    """Ask whether a Kubeflow Pipelines is there, before kfp's client does so for half a minute."""
    import requests

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{address}/apis/v2beta1/healthz"
    try:
        answer = requests.get(url, headers=headers, timeout=_TIMEOUT_SECONDS, allow_redirects=False)
    except requests.exceptions.SSLError as error:
        raise KubeflowError(f"{address} has a certificate that this machine does not trust: {error}") from error
    except requests.ConnectionError as error:
        raise KubeflowError(f"nothing answers at {address}: is the address right, is the port forwarded?") from error
    except requests.RequestException as error:
        raise KubeflowError(f"{address} cannot be asked: {error}") from error
    if answer.is_redirect or answer.status_code in (401, 403):
        raise KubeflowError(_not_let_in(address, answer.status_code, token is not None))
    try:
        body = answer.json()
    except requests.JSONDecodeError:
        body = None
    if answer.status_code != 200 or not isinstance(body, dict):
        raise KubeflowError(
            f"{address} answers ({answer.status_code}) but is no Kubeflow Pipelines API: "
            "behind Kubeflow's dashboard the address ends in /pipeline"
        )
    return body


def _not_let_in(address: str, status: int, with_token: bool) -> str:
    what = f"{address} does not let this request in ({status})"
    if with_token:
        return f"{what}: the token in {TOKEN_ENV} is wrong, has expired or does not give this right"
    return f"{what}: put a bearer token into the environment variable {TOKEN_ENV}"


@contextlib.contextmanager
def _kfp_errors(host: str, namespace: str | None) -> Iterator[None]:
    """Turn the errors of kfp's client into one sentence."""
    from kfp_server_api import ApiException  # type: ignore[import-untyped]
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status == 401:
            raise KubeflowError(_not_let_in(host, 401, bool(os.environ.get(TOKEN_ENV)))) from error
        where = f" in the namespace {namespace!r}" if namespace else ""
        raise KubeflowError(f"{host} refused the request{where} ({error.status}): {_reason(error)}") from error
    except HTTPError as error:
        raise KubeflowError(f"{host} does not answer any more: {error}") from error


def _reason(error: Any) -> str:
    try:
        body = json.loads(error.body)
    except (TypeError, ValueError):
        return str(error.reason)
    return str(body.get("message") or body.get("error") or error.reason) if isinstance(body, dict) else str(body)
