"""Bring a version up beside the one that serves, prove that it answers, move the default; on any failure, go back.

TorchServe leaves requests that have come in to the version that they came in for, so moving the default drops none.
Only taking workers away does: that waits until each worker has answered what it had begun.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longshore import storage
from longshore.client import probe
from longshore.errors import (
    ConfigError,
    DeployError,
    InvalidValue,
    LongshoreError,
)
from longshore.packaging.archive import ArchiveInfo, inspect_archive
from longshore.packaging.model import verified_card
from longshore.packaging.torchserve import FORMAT
from longshore.spec import Endpoint, ModelSource, Release, Service
from longshore.torchserve.archives import archive_digest, archive_of, placed
from longshore.torchserve.logs import Logs
from longshore.torchserve.plan import Plan, plan_deploy
from longshore.torchserve.recording import Record
from longshore.torchserve.server import ModelServer, Refused
from longshore.torchserve.waiting import Progress, WorkerDied, alone, await_workers, unregister_drained

__all__ = ["DeployedVersion", "deploy_version", "promote_version", "unregister_version"]

_PROBE_SECONDS: Final = 30.0
_WORDS_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeployedVersion:
    """What a deploy has achieved.

    Args:
        version: The version.
        endpoint: Where it answers: at the model's address, or at its own if it is not the default.
        replaced: The version that answered before at the model's address; None if none did, or it does still.
        retired: Versions that are gone.
        archive_digest: SHA-256 of the archive; None where nothing was deployed, only the default moved.
        seconds: How long it took.
    """

    version: str
    endpoint: Endpoint
    replaced: str | None = None
    retired: tuple[str, ...] = ()
    archive_digest: str | None = None
    seconds: float


def deploy_version(
    model: ModelSource,
    server: ModelServer,
    *,
    store: str | None = None,
    archive_url: str | None = None,
    workers: int | None = None,
    make_default: bool = True,
    keep_versions: int | None = None,
    logs: str | Path | None = None,
    tracking_uri: str | None = None,
    timeout_seconds: float = 300,
    on_progress: Progress = _log.info,
) -> DeployedVersion:
    """Serve a packaged model on a TorchServe that runs, with its model API on (``enable_model_api``).

    The version is registered beside those that are there, its workers load it, it is asked for its example rows at its
    own address, and then it becomes the default. If anything fails, it is unregistered and what served before still
    does. TorchServe gives a version all requests or none: one that is not the default is asked at
    ``/predictions/NAME/VERSION``, and sharing requests out by weight is for a proxy in front.

    Deploying the same version again changes nothing. One deploy of a model at a time is let through from one machine;
    from several, the last one has the default.

    Args:
        model: What :func:`longshore.packaging.package_torchserve` has stored.
        server: The server.
        store: Path or URI at which this process reaches the server's model store; the archive is copied there.
        archive_url: Where the server finds the archive by itself: the name of a file that is in its store already, or
            an http or file URL. By default the package's own place, where that is a URL of http or on this machine.
        workers: So many processes shall answer at least; None is as many as were packaged.
        make_default: Whether those who name no version get this one.
        keep_versions: How many of the versions before it stay: see :func:`longshore.torchserve.plan_deploy`.
        logs: Directory with the server's logs, if this process can read it: a worker's own words on why it cannot load
            a model are nowhere else.
        tracking_uri: The registry where the outcome is recorded; None is the one of this machine, if it has the
            version.
        timeout_seconds: For the workers to load the model, and once more for old ones to answer what they have begun.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If it cannot be done as written.
        DeployError: If the version did not come up or did not answer well; the message says what serves.
        DigestMismatch: If the package is not what was recorded.
        ModelError: If the archive is not to be unpacked.
    """
    if model.format != FORMAT:
        raise ConfigError(f"{model.uri} is of format {model.format!r}: package it for TorchServe (package_torchserve)")
    if store is not None and archive_url is not None:
        raise InvalidValue("archive_url", archive_url, "give it or store, not both")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch, alone(server, model.name, timeout_seconds):
        package = storage.fetch_directory(model.uri, Path(scratch))
        card, _ = verified_card(package, model.digest)
        archive = archive_of(package)
        info = inspect_archive(archive)
        version = model.version or info.version
        if (info.name, info.version) != (model.name, version):
            raise ConfigError(
                f"{model.uri} is to be version {version} of {model.name}, and its archive is version {info.version} of "
                f"{info.name}: package it anew"
            )
        plan = plan_deploy(
            model.name,
            version,
            server.versions(model.name),
            workers=workers,
            make_default=make_default,
            keep_versions=keep_versions,
        )
        release = Release(service=Service(name=model.name), model=model)
        attempt = _Attempt(
            server=server,
            plan=plan,
            endpoint=_endpoint(server, model.name, version, release.revision),
            ask=lambda endpoint: probe(
                endpoint,
                card.example,
                card.signature.classes,
                access=server.inference_access,
                timeout_seconds=_PROBE_SECONDS,
            ),
            logs=Logs(None if logs is None else Path(logs), model.name, version),
            deadline=began + timeout_seconds,
            on_progress=on_progress,
        )
        record = Record(release, tracking_uri, on_progress)
        try:
            with placed(model, archive, store, archive_url) as place:
                attempt.run(place, info)
        except BaseException as error:
            complaint = attempt.give_up(error)
            if complaint is None:
                raise
            if plan.register or plan.move:
                complaint = DeployError(record.failed(str(complaint)), restored=plan.before)
            raise complaint from error
        if make_default:
            record.serving(attempt.endpoint)
        retired = attempt.retire(time.monotonic() + timeout_seconds)
        return DeployedVersion(
            version=version,
            endpoint=attempt.endpoint if make_default else attempt.endpoint.at_revision(),
            replaced=plan.before if plan.move else None,
            retired=retired,
            archive_digest=archive_digest(archive),
            seconds=time.monotonic() - began,
        )


def promote_version(
    server: ModelServer,
    model: str,
    version: str,
    *,
    tracking_uri: str | None = None,
    timeout_seconds: float = 300,
    on_progress: Progress = _log.info,
) -> DeployedVersion:
    """Make a version the default that is registered already: one that was tried out, or the one before, to go back.

    Args:
        server: The server.
        model: Name of the model.
        version: The version. If its workers were taken away it gets one again first.
        tracking_uri: The registry where it is recorded; None is the one of this machine, if it has the version.
        timeout_seconds: For its workers to be ready.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If it is not registered.
        DeployError: If its workers do not come up; what served before still does.
    """
    began = time.monotonic()
    with alone(server, model, timeout_seconds):
        found = server.versions(model)
        if version not in {one.version for one in found}:
            there = ", ".join(one.version for one in found) or "none"
            raise ConfigError(f"{server.management} has no version {version} of {model}: there is {there}")
        plan = plan_deploy(model, version, found)
        source = ModelSource(uri=server.inference, format=FORMAT, name=model, version=_number(version))
        release = Release(service=Service(name=model), model=source)
        endpoint = _endpoint(server, model, version, release.revision)
        if plan.scale is not None:
            server.scale(model, version, plan.scale)
        await_workers(server, model, version, began + timeout_seconds, on_progress)
        if plan.move:
            server.set_default(model, version)
        Record(release, tracking_uri, on_progress).serving(endpoint)
    replaced = plan.before if plan.move else None
    return DeployedVersion(version=version, endpoint=endpoint, replaced=replaced, seconds=time.monotonic() - began)


def unregister_version(
    server: ModelServer,
    model: str,
    version: str,
    *,
    timeout_seconds: float = 300,
    on_progress: Progress = _log.info,
) -> None:
    """Have a server forget a version, once it has answered what it was asked. What is gone already is no error.

    Args:
        server: The server.
        model: Name of the model.
        version: A version that is not the default, or the only one.
        timeout_seconds: For its workers to answer what they have begun.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        ConfigError: If it is the default and there are others: make another one the default first.
        DeployError: If its workers are not done by then; it then answers as before.
    """
    with alone(server, model, timeout_seconds):
        found = server.versions(model)
        this = next((one for one in found if one.version == version), None)
        if this is None:
            return
        if this.default and len(found) > 1:
            raise ConfigError(f"version {version} of {model} is the default: make another version the default first")
        unregister_drained(server, this, time.monotonic() + timeout_seconds, on_progress)


@dataclass
class _Attempt:
    """One deploy under way: what it has done so far, to be undone."""

    server: ModelServer
    plan: Plan
    endpoint: Endpoint
    ask: Callable[[Endpoint], None]
    logs: Logs
    deadline: float
    on_progress: Progress
    registered: bool = False
    moved: bool = False

    def run(self, place: str, info: ArchiveInfo) -> None:
        server, model, version = self.server, self.plan.model, self.plan.version
        for step in self.plan.steps():
            self.on_progress(f"{model} {version}: {step}")
        if self.plan.register:
            self._register(place)
        if self.plan.scale is not None:
            server.scale(model, version, self.plan.scale)
        self._await_workers()
        self._check_content(info)
        self.ask(self.endpoint.at_revision())
        if self.plan.move:
            self.moved = True
            server.set_default(model, version)
            self.ask(self.endpoint)

    def _register(self, place: str) -> None:
        # also where no answer comes
        self.registered = True
        try:
            self.server.register(place, workers=self.plan.scale or 1, timeout_seconds=self._left())
        except Refused as refused:
            self.registered = False
            # somebody else may have been faster: then it is theirs
            if refused.status != 409:
                raise

    def _await_workers(self) -> None:
        try:
            await_workers(self.server, self.plan.model, self.plan.version, self.deadline, self.on_progress)
        except WorkerDied as died:
            # TorchServe may miss why a worker died, but the next one says it again
            if (told := self.logs.error(wait_seconds=_WORDS_SECONDS)) is not None:
                raise DeployError(f"{died}: {told}") from died
            raise DeployError(f"{died}. TorchServe's logs say why: model_log.log, ts_log.log") from died

    def _check_content(self, info: ArchiveInfo) -> None:
        """What is served under the version's name has to be this model, if its handler can tell."""
        if info.digest is None:
            return
        told = self.server.about(self.plan.model, self.plan.version, timeout_seconds=self._left()).get("digest")
        if told is not None and told != info.digest:
            raise DeployError(
                f"version {self.plan.version} of {self.plan.model} is there with other content ({told}, this one is "
                f"{info.digest}): versions are never overwritten, package it under a new one"
            )

    def _left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def retire(self, deadline: float) -> tuple[str, ...]:
        """Unregister what is not to stay; what cannot be is told, and takes nothing down."""
        gone = []
        for version in self.plan.retire:
            try:
                this = self.server.describe(self.plan.model, version)
                unregister_drained(self.server, this, deadline, self.on_progress)
            except LongshoreError as error:
                self.on_progress(f"version {version} of {self.plan.model} stays registered: {error}")
            else:
                gone.append(version)
        return tuple(gone)

    def give_up(self, error: BaseException) -> DeployError | None:
        """Undo what was done; what to tell, None if the error itself says all."""
        model, version, before = self.plan.model, self.plan.version, self.plan.before
        try:
            if self.moved and before is not None and self._default() == version:
                self.server.set_default(model, before)
            if self.registered:
                self._forget()
        except LongshoreError as failed:
            after = f"It could not be taken back: {failed}"
        else:
            after = "Nothing served before, and nothing is left"
            if before is not None:
                after = f"Version {before} serves as before"
            elif not self.plan.register:
                after = "It serves as before"
        if not isinstance(error, LongshoreError) or (isinstance(error, ConfigError) and not self.registered):
            return None
        return DeployError(f"{model}: version {version} was not deployed: {error}. {after}", restored=before)

    def _default(self) -> str | None:
        return next((one.version for one in self.server.versions(self.plan.model) if one.default), None)

    def _forget(self) -> None:
        try:
            this = self.server.describe(self.plan.model, self.plan.version)
            if self.moved:
                # it has been asked by others, too
                unregister_drained(
                    self.server, this, time.monotonic() + this.response_timeout_seconds, self.on_progress
                )
            else:
                self.server.unregister(self.plan.model, self.plan.version)
        except Refused as refused:
            if refused.status != 404:
                raise


def _endpoint(server: ModelServer, model: str, version: str, revision: str) -> Endpoint:
    return Endpoint(
        name=model,
        url=server.inference,
        model=model,
        revision=revision,
        revision_url=server.inference,
        revision_model=f"{model}/{version}",
        grpc_url=server.grpc,
        protocols=("torchserve",) if server.grpc is None else ("torchserve", "grpc-torchserve"),
    )


def _number(version: str) -> str | None:
    return version if version.isascii() and version.isdecimal() else None
