"""What TensorFlow Serving is told beyond what every platform is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longshore.errors import InvalidValue
from longshore.spec.checks import check_image, check_range

__all__ = ["Batching", "TensorFlowServingOptions"]


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests are answered together.

    Args:
        max_batch_size: At most so many rows.
        timeout_seconds: How long a row waits for others.
        max_enqueued_batches: Batches that may wait; more are refused.
        threads: Batches that are answered at the same time.
        allowed_sizes: Sizes that batches are filled up to, rising; the last is ``max_batch_size``. Any size without.
    """

    max_batch_size: int = 64
    timeout_seconds: float = 0.001
    max_enqueued_batches: int = 100
    threads: int = 4
    allowed_sizes: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_sizes", tuple(self.allowed_sizes))
        for name in ("max_batch_size", "max_enqueued_batches", "threads"):
            check_range(f"Batching.{name}", getattr(self, name), 1)
        if not 0 <= self.timeout_seconds <= 60:
            raise InvalidValue("Batching.timeout_seconds", self.timeout_seconds, "use 0 to 60 seconds")
        sizes = self.allowed_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise InvalidValue(
                "Batching.allowed_sizes", sizes, f"let them rise, and end with max_batch_size ({self.max_batch_size})"
            )


@dataclass(frozen=True, kw_only=True)
class TensorFlowServingOptions:
    """How TensorFlow Serving is run on Kubernetes.

    Args:
        batching: How requests are answered together; None answers each by itself.
        grpc: Whether clients may speak gRPC. The server has its control at the same port, and asks nobody who he is:
            whoever reaches that port can have it load other models. Without it, the port is reached by nobody.
        warmup: Whether a version answers the requests that it was packaged with before it gets any.
        intra_op_threads: Threads that one operation may use; None leaves it to the server: one for each core of the
            node.
        inter_op_threads: Operations that may run at the same time; None leaves it to the server.
        rest_timeout_seconds: For a request over REST.
        pod_monitor: Whether the Prometheus Operator is told to collect the metrics; it needs the kind PodMonitor.
        loader_image: Image with longshore that brings the models into the pod; None is longshore's own.
        args: Arguments for the server beyond these.
    """

    batching: Batching | None = None
    grpc: bool = False
    warmup: bool = True
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    rest_timeout_seconds: float = 30
    pod_monitor: bool = False
    loader_image: str | None = None
    args: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("intra_op_threads", "inter_op_threads"):
            if (value := getattr(self, name)) is not None:
                check_range(f"TensorFlowServingOptions.{name}", value, 1)
        if not 0 < self.rest_timeout_seconds <= 3600:
            raise InvalidValue(
                "TensorFlowServingOptions.rest_timeout_seconds", self.rest_timeout_seconds, "use up to 3600 seconds"
            )
        if self.loader_image is not None:
            check_image("TensorFlowServingOptions.loader_image", self.loader_image)
        if isinstance(self.args, str) or not all(isinstance(word, str) for word in self.args):
            raise InvalidValue("TensorFlowServingOptions.args", self.args, "use a list of strings")
        object.__setattr__(self, "args", tuple(self.args))
