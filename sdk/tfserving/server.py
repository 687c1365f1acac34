"""A running TensorFlow Serving, asked over gRPC what it has loaded and told what to serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

from longshore import client
from longshore.client.rpc import Channel
from longshore.errors import DeployError, InputError
from longshore.packaging.tfserving import ServedModel, models_message
from longshore.spec import Endpoint
from longshore.wire.messages import TENSORFLOW_SERVING, message

__all__ = ["LABELS", "TensorFlowServing", "VersionStatus"]

LABELS: Final = ("stable", "canary")
"""The labels that longshore gives."""

_STATES: Final = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """What a server says of a version.

    Args:
        version: Its number.
        state: ``START``, ``LOADING``, ``AVAILABLE``, ``UNLOADING`` or ``END``.
        error: Why it could not be loaded, in the server's words; empty if it could.
    """

    version: int
    state: str
    error: str = ""


class TensorFlowServing:
    """A running server, asked over gRPC.

    Args:
        address: ``HOST:PORT``, or a URL with the scheme ``grpc`` or ``grpcs``.
        access: Certificates, and a token if something in front wants one.
        timeout_seconds: For each request.
    """

    def __init__(self, address: str, *, access: client.Access | None = None, timeout_seconds: float = 30) -> None:
        url = address if "://" in address else f"grpc://{address}"
        self.endpoint: Final = Endpoint(
            name="tensorflow-serving", url=url, model="any", revision="any", protocols=("grpc-tensorflow",)
        )
        self._channel = Channel(self.endpoint, access or client.Access())
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def status(self, model: str) -> list[VersionStatus]:
        """The versions of a model that the server knows, the newest first; none if it does not know the model.

        Raises:
            DeployError: If the server does not answer.
        """
        asked = _class("GetModelStatusRequest")(model_spec={"name": model})
        try:
            told = self._call("ModelService/GetModelStatus", asked, "GetModelStatusResponse")
        except InputError:
            return []
        found = [
            VersionStatus(
                version=one.version,
                state=_STATES.get(one.state, str(one.state)),
                error=one.status.error_message if one.status.error_code else "",
            )
            for one in told.model_version_status
        ]
        return sorted(found, key=lambda one: -one.version)

    def labelled(self, model: str, label: str) -> int | None:
        """The version that answers under a label, None if none does.

        Raises:
            DeployError: If the server does not answer.
        """
        # the status is of all versions, whatever label is asked for
        asked = _class("GetModelMetadataRequest")(
            model_spec={"name": model, "version_label": label}, metadata_field=["signature_def"]
        )
        try:
            told = self._call("PredictionService/GetModelMetadata", asked, "GetModelMetadataResponse")
        except InputError:
            return None
        return int(told.model_spec.version.value)

    def serves(self, model: ServedModel) -> ServedModel | None:
        """What of a model is loaded now, with the labels that are known by name; None if nothing is."""
        versions = sorted(one.version for one in self.status(model.name) if one.state == "AVAILABLE")
        if not versions:
            return None
        labels = {label: self.labelled(model.name, label) for label in {*LABELS, *model.labels}}
        known = {label: version for label, version in sorted(labels.items()) if version in versions}
        return replace(model, versions=tuple(versions), labels=known)

    def configure(self, models: Sequence[ServedModel], *, timeout_seconds: float | None = None) -> None:
        """Tell the server all that it shall serve.

        It answers once each model that it did not know has a version that is available.

        Args:
            models: All models: what is left out is unloaded.
            timeout_seconds: For the answer; None is that of every request.

        Raises:
            DeployError: If it refuses; the message is the server's.
        """
        asked = _class("ReloadConfigRequest")()
        asked.config.ParseFromString(models_message(models).SerializeToString())
        try:
            self._call("ModelService/HandleReloadConfigRequest", asked, "ReloadConfigResponse", timeout_seconds)
        except InputError as error:
            raise DeployError(str(error)) from error

    def _call(self, method: str, asked: Any, answer: str, timeout_seconds: float | None = None) -> Any:
        timeout = timeout_seconds or self._timeout_seconds
        return self._channel.call(f"/tensorflow.serving.{method}", asked, _class(answer), timeout)


def _class(name: str) -> type[Any]:
    return message(TENSORFLOW_SERVING, name)
