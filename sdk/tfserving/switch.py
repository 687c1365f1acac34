"""Changes what running servers serve, without a moment in which one of them does not answer."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longshore import client
from longshore.client.tensorflow import model_inputs
from longshore.errors import DeployError, InvalidValue, LongshoreError
from longshore.packaging.model import read_card
from longshore.packaging.tfserving import ServedModel
from longshore.spec import Endpoint, ModelSource, Release, Service, Traffic
from longshore.spec.checks import check_choice
from longshore.storage import fetch_directory
from longshore.tfserving.server import LABELS, TensorFlowServing

if TYPE_CHECKING:
    from longshore.packaging import ModelCard
    from longshore.registry import RegistryRecorder

__all__ = ["OUTPUT", "Switched", "label_traffic", "reload", "smoke_test", "switch_version", "tensor_rows"]

_PAUSE_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 0.2
# until a server has begun what it was told, its status is of the last time
_STALE_SECONDS: Final = 3.0

OUTPUT: Final = "predict"
"""The output of a packaged SavedModel with its predictions."""


@dataclass(frozen=True, kw_only=True)
class Switched:
    """What :func:`switch_version` has achieved.

    Args:
        endpoint: Where the version answers.
        replaced: The version that had the label before, None if none did.
        seconds: Time from the first request until the last step was done.
    """

    endpoint: Endpoint
    replaced: int | None
    seconds: float


def reload(
    addresses: Sequence[str],
    models: Sequence[ServedModel],
    *,
    check: Callable[[str], None] | None = None,
    access: client.Access | None = None,
    timeout_seconds: float = 120,
    on_progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Have servers serve these models, versions and labels, without a moment in which one of them does not answer.

    All of them load what is new beside what serves. Once all have, labels are moved, and then what is wanted no longer
    is unloaded. If anything fails before that, each server is told what it served before: the versions that were loaded
    of these models, with the labels of theirs that are known by name (``stable``, ``canary`` and those given).

    Args:
        addresses: ``HOST:PORT`` of each, where gRPC is spoken.
        models: All models that they shall serve: what is left out is unloaded, since no server tells what it was told.
        check: Called with each address once all versions are available, and before a label is moved; may raise.
        access: Certificates, and a token if something in front wants one.
        timeout_seconds: For all versions to be available. A server retries what it could not load for minutes before it
            says so, unless it was started with ``--max_num_load_retries=0``.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        DeployError: If a version does not become available, or a server refuses or does not answer; in its own words.
    """
    with contextlib.ExitStack() as opened:
        servers = {at: opened.enter_context(TensorFlowServing(at, access=access)) for at in addresses}
        before = {at: [one for m in models if (one := server.serves(m)) is not None] for at, server in servers.items()}
        try:
            for at, server in servers.items():
                stale = {(m.name, one.version) for m in models for one in server.status(m.name) if one.error}
                beside = [_beside(m, before[at], labels="before") for m in models]
                server.configure(beside, timeout_seconds=timeout_seconds)
                on_progress(f"{at}: loading {_told(models)}")
                _await(at, server, models, stale, timeout_seconds)
            for at in servers:
                if check is not None:
                    check(at)
            for at, server in servers.items():
                server.configure([_beside(m, before[at], labels="after") for m in models])
                on_progress(f"{at}: serves {_told(models)}")
        except BaseException as error:
            told = _take_back(servers, before)
            if isinstance(error, LongshoreError):
                raise DeployError(f"{error}. {told}") from error
            raise
        idle = [at for at in servers if [_beside(m, before[at], labels="after") for m in models] != list(models)]
        if idle:
            # a request that has just been told which version a label is has still to take hold of it
            time.sleep(_SETTLE_SECONDS)
        for at in idle:
            servers[at].configure(models)


def _beside(model: ServedModel, before: Sequence[ServedModel], *, labels: str) -> ServedModel:
    """The model with what is loaded of it still there, and the labels of before or after."""
    was = next((one for one in before if one.name == model.name), None)
    if was is None or not model.versions:
        return model if labels == "after" else replace(model, labels={})
    versions = tuple(sorted({*was.versions, *model.versions}))
    return replace(model, versions=versions, labels=was.labels if labels == "before" else model.labels)


def _await(
    at: str, server: TensorFlowServing, models: Sequence[ServedModel], stale: set[tuple[str, int]], timeout: float
) -> None:
    began = time.monotonic()
    while True:
        missing = [why for model in models if (why := _lacking(at, server, model, stale)) is not None]
        if not missing:
            return
        if time.monotonic() - began > _STALE_SECONDS:
            stale = set()
        if time.monotonic() - began > timeout:
            raise DeployError(f"{at}: not available after {timeout:g} s: {'; '.join(missing)}")
        time.sleep(_PAUSE_SECONDS)


def _lacking(at: str, server: TensorFlowServing, model: ServedModel, stale: set[tuple[str, int]]) -> str | None:
    """What is not available of a model yet, None if all is."""
    states = {one.version: one for one in server.status(model.name)}
    for version in model.versions:
        one = states.get(version)
        if one is None:
            return f"it has not found {model.name}, version {version}, at {model.base_path}/{version}"
        if one.error and (model.name, version) not in stale:
            raise DeployError(f"{at}: {model.name}, version {version}, could not be loaded: {one.error}")
        if one.state != "AVAILABLE":
            return f"{model.name}, version {version}, is {one.state}"
    if not model.versions and not any(one.state == "AVAILABLE" for one in states.values()):
        return f"no version of {model.name} is available"
    return None


def _take_back(servers: Mapping[str, TensorFlowServing], before: Mapping[str, Sequence[ServedModel]]) -> str:
    """Tell the servers what they served before; a sentence on what came of it."""
    complaints = []
    for at, server in servers.items():
        try:
            server.configure(before[at])
        except LongshoreError as error:
            complaints.append(f"{at} could not be told what it served before: {error}")
    if complaints:
        return "; ".join(complaints)
    served = {_told(models) for models in before.values() if models}
    return f"As before is served: {'; '.join(sorted(served))}" if served else "Nothing served before"


def _told(models: Sequence[ServedModel]) -> str:
    return ", ".join(_one(model) for model in models) or "nothing"


def _one(model: ServedModel) -> str:
    labels = {version: f"{version} ({label})" for label, version in model.labels.items()}
    versions = " and ".join(labels.get(version, str(version)) for version in model.versions)
    return f"{model.name} {versions or f'in its {model.latest} newest versions'}"


def switch_version(
    addresses: Sequence[str],
    model: ModelSource,
    *,
    label: str = "stable",
    base_path: str | None = None,
    keep_previous: bool = True,
    others: Sequence[ServedModel] = (),
    rest_url: str | None = None,
    access: client.Access | None = None,
    service: str | None = None,
    tracking_uri: str | None = None,
    record: bool = False,
    timeout_seconds: float = 120,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Switched:
    """Give a version of a model a label on running servers, once all of them have loaded it and it answers.

    Args:
        addresses: ``HOST:PORT`` of each, where gRPC is spoken.
        model: The version, with its number. One that longshore has packaged is asked for its example rows before the
            label is moved.
        label: ``stable`` takes the place of what has it, and of a canary; ``canary`` is loaded beside that.
        base_path: Directory of the model's versions as the servers see it; None is that of the model's URI.
        keep_previous: Whether the version that was stable stays loaded, so that going back takes no time.
        others: The other models that the servers serve, which would be unloaded otherwise.
        rest_url: Where the servers speak REST, for the endpoint that is returned.
        access: Certificates, and a token if something in front wants one.
        service: What the servers are called in the registry; None is the name of the model.
        tracking_uri: The registry; None is the one of this machine.
        record: Whether the outcome is recorded there: what is stable is the champion.
        timeout_seconds: For the version to be available.
        on_progress: Called with a sentence whenever something new is known.

    Raises:
        InvalidValue: If the version has no number, or what serves is asked to be its own canary.
        DeployError: If it does not become available or does not answer well; says what serves instead.
        RegistryError: If what serves now could not be recorded.
    """
    began = time.monotonic()
    if not addresses:
        raise InvalidValue("addresses", addresses, "give at least one server")
    check_choice("label", label, LABELS)
    if model.version is None:
        raise InvalidValue("ModelSource.version", None, "TensorFlow Serving tells versions apart by their number")
    version = int(model.version)
    served = ServedModel(
        name=model.name, base_path=base_path or model.uri.rstrip("/").rpartition("/")[0], versions=(version,)
    )
    with TensorFlowServing(addresses[0], access=access) as first:
        now = first.serves(served)
    labels = {} if now is None else dict(now.labels)
    others_loaded = [] if now is None else [one for one in now.versions if one != labels.get("canary")]
    # where nobody has given a label yet, the newest answers
    stable = labels.get("stable", others_loaded[-1] if others_loaded else None)
    if label == "canary" and stable == version:
        raise InvalidValue("label", label, f"version {version} is what serves: a canary is another one")
    wanted = {"canary": version} if label == "canary" else {"stable": version}
    if label == "canary" and stable is not None:
        wanted["stable"] = stable
    kept = {version, *wanted.values()} | ({stable} if keep_previous and stable is not None else set())
    after = replace(served, versions=tuple(sorted(kept)), labels=wanted)

    test = smoke_test(_card(model), access=access)

    def check(at: str) -> None:
        test(_endpoint(at, model, f"versions/{version}"))

    release = Release(service=Service(name=service or model.name), model=model)
    recorder = _recorder(tracking_uri) if record else None
    try:
        reload(
            addresses,
            [after, *others],
            check=check,
            access=access,
            timeout_seconds=timeout_seconds,
            on_progress=on_progress,
        )
    except LongshoreError as error:
        if recorder is not None:
            serving = None if stable is None else replace(release, model=replace(model, version=str(stable)))
            recorder.failed(release, serving, str(error))
        raise
    endpoint = _endpoint(addresses[0], model, f"labels/{label}", rest_url)
    if recorder is not None and label == "stable":
        recorder.serving(release, endpoint, None)
    return Switched(endpoint=endpoint, replaced=labels.get(label), seconds=time.monotonic() - began)


def _recorder(tracking_uri: str | None) -> RegistryRecorder:
    from longshore.registry import RegistryRecorder

    return RegistryRecorder(tracking_uri)


def label_traffic(label: str, percent: int | None = None) -> Traffic:
    """What a label is to the platform ``tensorflow-serving``.

    Args:
        label: ``stable`` gets the requests, ``canary`` none but its own.
        percent: The part that a router gives instead; None for no router, or all.

    Raises:
        InvalidValue: If there is no such label.
    """
    check_choice("label", label, LABELS)
    usual = 100 if label == "stable" else 0
    return Traffic(percent=usual if percent is None else percent)


def _endpoint(address: str, model: ModelSource, path: str, rest_url: str | None = None) -> Endpoint:
    grpc = address if "://" in address else f"grpc://{address}"
    return Endpoint(
        name=model.name,
        url=rest_url or grpc,
        grpc_url=grpc,
        model=f"{model.name}/{path}",
        revision=f"{model.name}-{model.version}",
        protocols=("grpc-tensorflow",) if rest_url is None else ("tensorflow", "grpc-tensorflow"),
        takes="tensors",
    )


def _card(model: ModelSource) -> ModelCard | None:
    """The card of a model that longshore has packaged."""
    if model.digest is None:
        return None
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        return read_card(fetch_directory(model.uri, Path(scratch)))


def smoke_test(card: ModelCard | None, *, access: client.Access | None = None) -> Callable[[Endpoint], None]:
    """What asks for a model's own example rows, or else whether it has the signature that clients ask for.

    Args:
        card: The model's card; None asks for the signature alone.
        access: Certificates, and a token if something in front wants one.
    """

    def ask(endpoint: Endpoint) -> None:
        if card is not None:
            rows = list(tensor_rows(card, card.example))
            client.probe(endpoint, rows, card.signature.classes, output=OUTPUT, access=access)
        else:
            model_inputs(endpoint, access)

    return ask


def tensor_rows(card: ModelCard, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows by column as what a packaged SavedModel takes: a value for each of its tensors.

    Args:
        card: The model's card.
        rows: The rows.
    """
    from longshore.packaging import rows_to_frame
    from longshore.packaging.feeds import FeedReader

    tensors = FeedReader(card.feeds, card.signature)(rows_to_frame(card.signature, rows))
    columns = {name: array.tolist() for name, array in tensors.items()}
    for index in range(len(rows)):
        yield {name: values[index] for name, values in columns.items()}
