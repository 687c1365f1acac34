"""What TorchServe says of the versions of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longshore.errors import DeployError

__all__ = ["Version", "Worker", "order", "read_version"]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that answers for one version.

    Args:
        id: TorchServe's number of it.
        status: ``READY``, or ``UNLOADING``, which it also says while the model is loaded and after the process died.
        pid: The process, where TorchServe runs.
    """

    id: str
    status: str
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a model.

    Args:
        model: Name of the model.
        version: The version.
        archive: File or URL that it was registered from.
        default: Whether it answers those who name no version.
        min_workers: So many workers it shall have at least.
        max_workers: And at most.
        workers: Those that it has.
        queued: Requests that wait for one.
        batch_size: Requests that a worker answers together.
        response_timeout_seconds: A worker that takes longer is ended.
    """

    model: str
    version: str
    archive: str
    default: bool = False
    min_workers: int = 0
    max_workers: int = 0
    workers: tuple[Worker, ...] = ()
    queued: int = 0
    batch_size: int = 1
    response_timeout_seconds: int = 120

    @property
    def ready_workers(self) -> int:
        """How many can answer."""
        return sum(worker.status == "READY" for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether as many can as it shall have."""
        return self.ready_workers >= max(1, self.min_workers)

    def __str__(self) -> str:
        wanted = max(self.min_workers, len(self.workers))
        return f"{self.model} {self.version}: {self.ready_workers} of {wanted} workers are ready"


def read_version(described: Mapping[str, Any], *, default: str | None) -> Version:
    """A version as TorchServe describes it.

    Args:
        described: Its JSON.
        default: The model's default version.

    Raises:
        DeployError: If that is no description.
    """
    try:
        version = str(described["modelVersion"])
        return Version(
            model=str(described["modelName"]),
            version=version,
            archive=str(described["modelUrl"]),
            default=version == default,
            min_workers=int(described["minWorkers"]),
            max_workers=int(described["maxWorkers"]),
            workers=tuple(
                Worker(id=str(one["id"]), status=str(one["status"]), pid=_pid(one.get("pid")))
                for one in described["workers"]
            ),
            queued=int((described.get("jobQueueStatus") or {}).get("pendingRequests", 0)),
            batch_size=int(described.get("batchSize", 1)),
            response_timeout_seconds=int(described.get("responseTimeout", 120)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DeployError(f"this is no description of a model on TorchServe: {str(described)[:200]}") from error


def _pid(told: Any) -> int | None:
    """TorchServe does not know it from the start."""
    return told if isinstance(told, int) and told > 0 else None


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions as people count: 9 before 10, 1.9 before 1.10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in version.split("."))
