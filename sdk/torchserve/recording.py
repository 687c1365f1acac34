"""What became of a deploy, in the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longshore.errors import RegistryError
from longshore.spec import Endpoint, ModelSource, Release
from longshore.torchserve.waiting import Progress

__all__ = ["Record"]


class Record:
    """Tells the registry, if it has the version."""

    def __init__(self, release: Release, tracking_uri: str | None, on_progress: Progress) -> None:
        self._release, self._tracking_uri, self._on_progress = release, tracking_uri, on_progress

    def serving(self, endpoint: Endpoint) -> None:
        self._told(lambda recorder, release: recorder.serving(release, endpoint, None))

    def failed(self, reason: str) -> None:
        self._told(lambda recorder, release: recorder.failed(release, None, reason))

    def _told(self, tell: Callable[[Any, Any], None]) -> None:
        from longshore.registry import Registry, RegistryRecorder

        model = self._release.model
        if model.version is None:
            return
        try:
            # where it was registered from stays: a package for TorchServe is no model that other steps load
            source = Registry(self._tracking_uri).get(model.name, model.version)
            tell(RegistryRecorder(self._tracking_uri), _Registered(self._release, source))
        except RegistryError as error:
            if self._tracking_uri is not None:
                raise
            self._on_progress(f"not recorded in the registry of this machine: {error}")


class _Registered:
    """A release with its model as it is registered."""

    def __init__(self, release: Release, model: ModelSource) -> None:
        self.service, self.revision, self.model = release.service, release.revision, model
