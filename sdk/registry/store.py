"""The registry as longshore uses it: versions recognised by their digest, a champion, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from longshore import home
from longshore.errors import RegistryError
from longshore.registry.connection import Connection, error_code
from longshore.registry.versions import (
    CHALLENGER,
    CHAMPION,
    URI_TAG,
    DeploymentState,
    RegisteredVersion,
    deployment_tags,
    registration_tags,
    version_from,
)
from longshore.spec import ModelSource
from longshore.spec.checks import check_dns_label

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["Registry", "find_version", "list_versions", "make_champion", "set_tags"]

_PAGE: Final = 1000
_SHOWN: Final = 20


class Registry:
    """Models by name and version, kept in MLflow.

    Making one opens nothing: each call connects for itself, so a value can be kept and shared.

    Args:
        tracking_uri: ``http(s)://`` of an MLflow server or the URI of a database; None is a SQLite file in
            longshore's folder on this machine.

    Raises:
        RegistryError: If the URI is not valid. Every method raises it, too, if the registry cannot be reached,
            refuses, or does not have what was asked for.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.connection = Connection(tracking_uri or home.registry_uri())

    def __repr__(self) -> str:
        return f"Registry({self.connection.shown!r})"

    def register(
        self,
        model: ModelSource,
        *,
        metrics: Mapping[str, float],
        data_digest: str,
        run: str | None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelSource:
        """Add a model as a new version, the challenger of its name.

        A model whose digest a version of that name has already gets that version, which keeps its scores and tags.
        On a server, two runs that register the same content in the same instant may get a version each.

        Args:
            model: The model; its files stay where they are.
            metrics: Scores to keep with the version.
            data_digest: Digest of the training data; empty if unknown.
            run: The run that trained it.
            tags: Further tags of a new version.

        Returns:
            ``model`` with its version. Its URI is the one given: the files are known to be there.
        """
        with self.connection.client(f"registering model {model.name!r}", exclusive=True) as client:
            registered = _registered_model(client, model.name) or _create_model(client, model.name)
            version = _same_digest(client, model)
            if version is None:
                own = registration_tags(model, metrics=metrics, data_digest=data_digest, run=run)
                source = self.connection.source(model.uri)
                if source != model.uri:
                    own[URI_TAG] = model.uri
                made = client.create_model_version(model.name, source=source, tags={**(tags or {}), **own})
                version = str(made.version)
            if str(registered.aliases.get(CHAMPION)) != version:
                client.set_registered_model_alias(model.name, CHALLENGER, version)
        return replace(model, version=version)

    def champion(self, name: str) -> ModelSource | None:
        """The version that serves, or served last; None if no version of that name ever did.

        A registry file that does not exist yet is not made by looking.
        """
        check_dns_label("name", name)
        if self.connection.absent:
            return None
        with self.connection.client(f"looking up the champion of model {name!r}") as client:
            registered = _registered_model(client, name)
            if registered is None or CHAMPION not in registered.aliases:
                return None
            return find_version(client, name, CHAMPION).source

    def get(self, name: str, version_or_alias: str) -> ModelSource:
        """A version by its number or by an alias such as ``champion``."""
        check_dns_label("name", name)
        self._refuse_if_absent(name)
        with self.connection.client(f"looking up {version_or_alias!r} of model {name!r}") as client:
            return find_version(client, name, version_or_alias).source

    def versions(self, name: str) -> list[RegisteredVersion]:
        """All versions of a model, the latest first."""
        check_dns_label("name", name)
        self._refuse_if_absent(name)
        with self.connection.client(f"listing the versions of model {name!r}") as client:
            return list_versions(client, name)

    def promote(self, name: str, version: str) -> None:
        """Make a version the champion. This moves no traffic: a deploy does, and promotes what it has deployed."""
        check_dns_label("name", name)
        self._refuse_if_absent(name)
        with self.connection.client(f"promoting version {version} of model {name!r}", exclusive=True) as client:
            make_champion(client, find_version(client, name, version))

    def record(self, name: str, version: str, service: str, state: DeploymentState) -> None:
        """Write what became of a version behind a service; the state recorded before is overwritten."""
        check_dns_label("name", name)
        tags = deployment_tags(service, state)
        self._refuse_if_absent(name)
        with self.connection.client(f"recording version {version} of model {name!r}", exclusive=True) as client:
            set_tags(client, find_version(client, name, version), tags)

    def _refuse_if_absent(self, name: str) -> None:
        if self.connection.absent:
            raise self.connection.told(_unknown_model(name, []))


def find_version(client: MlflowClient, name: str, version_or_alias: str) -> RegisteredVersion:
    """One version with all that is known of it.

    Raises:
        RegistryError: If there is no such model or version; names those there are.
    """
    found = list_versions(client, name)
    for version in found:
        if version_or_alias == version.version or version_or_alias in version.aliases:
            return version
    there_are = [" ".join([v.version, *(f"({alias})" for alias in v.aliases)]) for v in found]
    raise RegistryError(f"model {name!r} has no version or alias {version_or_alias!r}: there are {_listed(there_are)}")


def list_versions(client: MlflowClient, name: str) -> list[RegisteredVersion]:
    """All versions of a model, the latest first.

    Raises:
        RegistryError: If there is no such model; names those there are.
    """
    registered = _registered_model(client, name)
    if registered is None:
        raise _unknown_model(name, [model.name for model in client.search_registered_models(max_results=_PAGE)])
    # a search does not say which aliases a version has
    aliases: dict[str, list[str]] = {}
    for alias, number in registered.aliases.items():
        aliases.setdefault(str(number), []).append(alias)
    versions = [
        version_from(
            name=name,
            version=str(found.version),
            source=found.source or "",
            tags=found.tags,
            aliases=aliases.get(str(found.version), ()),
        )
        for found in _search(client, f"name = '{name}'")
    ]
    return sorted(versions, key=lambda version: int(version.version), reverse=True)


def make_champion(client: MlflowClient, version: RegisteredVersion) -> None:
    """Move the alias ``champion`` to a version, which then is no challenger any more."""
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def set_tags(client: MlflowClient, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Write tags of a version, one call each: MLflow has no call for many."""
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _registered_model(client: MlflowClient, name: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _create_model(client: MlflowClient, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.create_registered_model(name)
    except MlflowException as error:
        # another run was faster
        if error_code(error) == "RESOURCE_ALREADY_EXISTS":
            return client.get_registered_model(name)
        raise


def _same_digest(client: MlflowClient, model: ModelSource) -> str | None:
    if model.digest is None:
        return None
    found = _search(client, f"name = '{model.name}' and tags.`longshore.digest` = '{model.digest}'")
    return max((str(version.version) for version in found), key=int, default=None)


def _search(client: MlflowClient, query: str) -> list[Any]:
    page = client.search_model_versions(query, max_results=_PAGE)
    found = list(page)
    while page.token:
        page = client.search_model_versions(query, max_results=_PAGE, page_token=page.token)
        found.extend(page)
    return found


def _unknown_model(name: str, names: list[str]) -> RegistryError:
    return RegistryError(f"there is no model {name!r}: there are {_listed(sorted(names))}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown or "none"
