"""Writes what became of each release into the registry, so that it tells what serves where."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from longshore.errors import RegistryError
from longshore.registry.store import Registry, find_version, list_versions, make_champion, set_tags
from longshore.registry.versions import (
    CHAMPION,
    URI_TAG,
    DeploymentState,
    RegisteredVersion,
    deployment_tags,
    superseded_state,
    utc_now,
)
from longshore.spec import Endpoint, ModelSource, Release

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow.tracking import MlflowClient

__all__ = ["RegistryRecorder"]


class RegistryRecorder:
    """A recorder for :func:`longshore.release.deploy`; models without a version are passed over.

    Each call can be made again after a failure: it writes what is so, whatever was written before.

    Args:
        tracking_uri: As of :class:`Registry`.

    Raises:
        RegistryError: If the URI is not valid. Both methods raise it if the registry cannot be reached or does not
            have the version.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.registry = Registry(tracking_uri)

    def serving(self, release: Release, endpoint: Endpoint, previous: Release | None) -> None:
        """Record that a release serves: it is the champion, and what served before is replaced or rolled back."""
        model, service = release.model, release.service.name
        if model.version is None:
            return
        state = DeploymentState(state="serving", revision=release.revision, endpoint=endpoint.url)
        with self._client(release) as client:
            version = find_version(client, model.name, model.version)
            # the durable place first: an alias must never lead to files that are gone. What was made of the model for
            # one server, such as an archive, has another digest and is not what the version stands for
            place = {URI_TAG: model.uri} if version.digest in (None, model.digest) else {}
            set_tags(client, version, {**place, **deployment_tags(service, state)})
            make_champion(client, version)
            for old in _served_before(client, release, previous):
                before = old.deployments.get(service) or DeploymentState(state="serving", revision="")
                ended = replace(before, state=superseded_state(old, model), reason="", time=state.time)
                set_tags(client, old, deployment_tags(service, ended))

    def failed(self, release: Release, serving: Release | None, reason: str) -> None:
        """Record that a release did not come up, or serves no more; the champion stays what it is.

        If the same version serves already, in another revision, it goes on being recorded as serving, with the
        failed attempt as the reason. A champion that was taken back, so that nothing serves, is champion no more.
        """
        model, service = release.model, release.service.name
        if model.version is None:
            return
        with self._client(release) as client:
            version = find_version(client, model.name, model.version)
            if serving is not None and _same_version(serving.model, model):
                known = version.deployments.get(service) or DeploymentState(state="serving", revision=serving.revision)
                told = f"revision {release.revision} was not deployed: {reason}"
                state = replace(known, state="serving", revision=serving.revision, reason=told, time=utc_now())
            else:
                state = DeploymentState(state="failed", revision=release.revision, reason=reason)
                if serving is None and _serves_here_only(version, service):
                    client.delete_registered_model_alias(version.name, CHAMPION)
            set_tags(client, version, deployment_tags(service, state))

    def _client(self, release: Release) -> AbstractContextManager[MlflowClient]:
        doing = f"recording version {release.model.version} of model {release.model.name!r}"
        return self.registry.connection.client(doing, exclusive=True)


def _serves_here_only(version: RegisteredVersion, service: str) -> bool:
    """Whether a version is the champion by what this one service serves."""
    serving = {name for name, known in version.deployments.items() if known.state == "serving"}
    return CHAMPION in version.aliases and serving == {service}


def _served_before(client: MlflowClient, release: Release, previous: Release | None) -> list[RegisteredVersion]:
    """The versions that do not serve any more: those recorded as serving, and the one that is said to have served.

    Looking at the records too mends what an interrupted run left behind.
    """
    model, service = release.model, release.service.name
    found = {
        (old.name, old.version): old
        for old in list_versions(client, model.name)
        if service in old.deployments and old.deployments[service].state == "serving"
    }
    if previous is not None and previous.model.version is not None:
        # a version that was deleted from the registry needs no record
        with suppress(RegistryError):
            old = find_version(client, previous.model.name, previous.model.version)
            found[old.name, old.version] = old
    found.pop((model.name, model.version or ""), None)
    return list(found.values())


def _same_version(one: ModelSource, other: ModelSource) -> bool:
    return (one.name, one.version) == (other.name, other.version)
