"""The versions of a model that one server has, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from longshore.errors import InvalidValue
from longshore.serving.core import Predictor
from longshore.serving.refusals import RequestError

__all__ = ["Models"]


class Models:
    """One model in one or several versions. What a request has found goes on answering it if it is replaced meanwhile.

    Args:
        predictors: A predictor for each version, all of one name.
        default: The version that answers requests which name none; by default the highest.

    Attributes:
        name: Name of the model in request paths.
        default: The predictor of the default version.

    Raises:
        InvalidValue: If there are none, two have the same version, or the default is not among them.
    """

    def __init__(self, predictors: Sequence[Predictor], *, default: str | None = None) -> None:
        by_version = {predictor.version: predictor for predictor in predictors}
        if len({predictor.name for predictor in predictors}) != 1 or len(by_version) != len(predictors):
            raise InvalidValue("Models", sorted(map(str, by_version)), "one model, and each version of it once")
        if default is None:
            default = max(by_version, key=lambda version: int(version or 0))
        if default not in by_version:
            raise InvalidValue("Models.default", default, f"there is {', '.join(map(str, by_version))}")
        self._by_version = by_version
        self.name: str = predictors[0].name
        self.default: Predictor = by_version[default]

    @property
    def predictors(self) -> Sequence[Predictor]:
        """The predictors of all versions."""
        return tuple(self._by_version.values())

    @property
    def versions(self) -> list[str]:
        """The versions that are served; none outside of a registry."""
        return [version for version in self._by_version if version is not None]

    def find(self, model: str, version: str = "") -> Predictor:
        """The predictor that answers a request.

        Args:
            model: Name of the model.
            version: Its version; empty is the default one.

        Raises:
            RequestError: 404, naming what is served.
        """
        if model != self.name:
            raise RequestError(404, f"there is no model {model!r} here: this server serves {self.name!r}")
        if version in ("", self.default.version):
            return self.default
        if (found := self._by_version.get(version)) is None:
            served = f"version {', '.join(map(repr, self.versions))}" if self.versions else "no version"
            raise RequestError(404, f"there is no version {version!r} of {model!r} here: this server serves {served}")
        return found
