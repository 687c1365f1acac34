"""The error of this package."""

from __future__ import annotations

from longshore.errors import LongshoreError

__all__ = ["MonitorError"]


class MonitorError(LongshoreError):
    """A server's metrics could not be read, or are not of the model that they are compared with."""
