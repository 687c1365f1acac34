"""The errors that longshore raises for people to read.

Every error says what failed, on which object, why, and what to do. The command line prints ``str(error)``
and no traceback; a component lets the error end its step, so the same sentence stands last in the pod's log.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ClusterError",
    "ConfigError",
    "DataError",
    "DeployError",
    "DigestMismatch",
    "ImageError",
    "InputError",
    "InvalidValue",
    "LongshoreError",
    "MissingExtra",
    "ModelError",
    "MonitorError",
    "RegistryError",
    "StorageError",
    "TrainingError",
]


class LongshoreError(Exception):
    """Base of all errors that are told to the user as one message."""


class ConfigError(LongshoreError):
    """A request that cannot be carried out as written; nothing has been done."""


class InvalidValue(ConfigError, ValueError):
    """A field was given a value that breaks its rule.

    Args:
        field: The field as the user would write it, such as ``"Scaling.max_replicas"``.
        value: The refused value.
        rule: What the field accepts.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field, self.value, self.rule = field, value, rule
        super().__init__(f"{field} = {value!r} is not valid: {rule}")

    def __reduce__(self) -> tuple[type[InvalidValue], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.rule)


class MissingExtra(LongshoreError, ImportError):
    """An optional dependency is needed and absent.

    Args:
        feature: What the user asked for.
        package: The package that could not be imported.
        extra: The extra of longshore that brings it.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.feature, self.package, self.extra = feature, package, extra
        super().__init__(f"{feature} needs the package {package!r}: pip install 'longshore[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        return type(self), (self.feature, self.package, self.extra)


class StorageError(LongshoreError):
    """A URI could not be read or written."""


class DataError(LongshoreError):
    """A table cannot serve its purpose: empty, wrong columns, wrong values."""


class TrainingError(LongshoreError):
    """An estimator could not be built or fitted."""


class ModelError(LongshoreError):
    """A model directory is incomplete or of a kind that cannot be loaded."""


class DigestMismatch(ModelError):
    """A file's content differs from the digest that was recorded for it.

    Args:
        what: The file or directory.
        expected: The recorded digest.
        actual: The digest of what is there now.
    """

    def __init__(self, what: str, expected: str, actual: str) -> None:
        self.what, self.expected, self.actual = what, expected, actual
        super().__init__(
            f"{what} does not have the recorded content (expected {expected}, found {actual}): "
            "it was changed, cut short or tampered with, and is not loaded"
        )

    def __reduce__(self) -> tuple[type[DigestMismatch], tuple[str, str, str]]:
        return type(self), (self.what, self.expected, self.actual)


class InputError(LongshoreError):
    """Rows sent to a model do not fit its signature.

    Args:
        message: The first thing that is wrong, naming row and column.
        problems: All that was found, one sentence each.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems) or (message,)
        super().__init__(message)


class RegistryError(LongshoreError):
    """The model registry refused or could not be reached."""


class MonitorError(LongshoreError):
    """A server's metrics could not be read, or are not of the model that they are compared with."""


class DeployError(LongshoreError):
    """A release did not come up. What served before still does, unless the message says otherwise.

    Args:
        message: What failed, with the platform's own reason.
        restored: The revision that serves again, or None where nothing served before.
    """

    def __init__(self, message: str, restored: str | None = None) -> None:
        self.restored = restored
        super().__init__(message)


class ImageError(LongshoreError):
    """A container image could not be built or pushed; the message has the builder's own words."""


class ClusterError(LongshoreError):
    """A Kubernetes cluster refused a request, could not be reached or lacks what a request takes.

    Args:
        message: What failed, on which object, why, and what to do.
        reason: One word for programs: Kubernetes' own reason, such as ``Forbidden``, ``Conflict``, ``Invalid`` or
            ``NotFound``, or ``Unreachable`` or ``NotInstalled``.
    """

    def __init__(self, message: str, reason: str) -> None:
        self.reason = reason
        super().__init__(message)

    def __reduce__(self) -> tuple[type[ClusterError], tuple[str, str]]:
        return type(self), (str(self), self.reason)
