"""What became of a deploy, in the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from longshore.errors import DeployError, RegistryError
from longshore.spec import Endpoint, Release
from longshore.torchserve.waiting import Progress

if TYPE_CHECKING:
    from longshore.registry import RegistryRecorder

__all__ = ["Record"]


class Record:
    """Tells the registry, if it has the version.

    Args:
        release: What is deployed.
        tracking_uri: The registry; None is the one of this machine, which need not know the version.
        on_progress: Told if that does not.
    """

    def __init__(self, release: Release, tracking_uri: str | None, on_progress: Progress) -> None:
        self._release, self._tracking_uri, self._on_progress = release, tracking_uri, on_progress

    def serving(self, endpoint: Endpoint) -> None:
        """The version answers all requests.

        Raises:
            DeployError: If that cannot be recorded where it shall be.
        """
        try:
            self._told(lambda recorder: recorder.serving(self._release, endpoint, None))
        except RegistryError as error:
            model = self._release.model
            raise DeployError(
                f"version {model.version} of {model.name} serves at {endpoint.url}, but this could not be recorded: "
                f"{error}. Run the step again once that is mended: it changes nothing that serves"
            ) from error

    def failed(self, reason: str) -> str:
        """The version was not deployed; the reason, and if that could not be recorded either, why."""
        try:
            self._told(lambda recorder: recorder.failed(self._release, None, reason))
        except RegistryError as error:
            return f"{reason}. The failure could not be recorded: {error}"
        return reason

    def _told(self, tell: Callable[[RegistryRecorder], None]) -> None:
        from longshore.registry import RegistryRecorder

        try:
            recorder = RegistryRecorder(self._tracking_uri)
            if self._tracking_uri is None and recorder.registry.connection.absent:
                return
            tell(recorder)
        except RegistryError as error:
            if self._tracking_uri is not None:
                raise
            self._on_progress(f"not recorded in the registry of this machine: {error}")
