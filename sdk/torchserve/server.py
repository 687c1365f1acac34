"""TorchServe's management API.

Source: github.com/pytorch/serve (v0.12.0, docs/management_api.md, docs/token_authorization_api.md, and the frontend's
``ApiUtils``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from longshore.client import Access
from longshore.client.http import Http
from longshore.client.refusals import words_of
from longshore.errors import ConfigError, DeployError, InvalidValue
from longshore.spec import Endpoint
from longshore.torchserve.versions import Version, read_version

if TYPE_CHECKING:
    import requests

__all__ = ["INFERENCE_TOKEN", "MANAGEMENT_TOKEN", "ModelServer", "Refused"]

MANAGEMENT_TOKEN: Final = "LONGSHORE_TORCHSERVE_MANAGEMENT_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable with the token for management."""

INFERENCE_TOKEN: Final = "LONGSHORE_TORCHSERVE_INFERENCE_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable with the token for predictions."""

_SECONDS: Final = 30.0
_PAGE: Final = 100


class Refused(DeployError):
    """TorchServe refused a request.

    Args:
        message: What was asked and what it said.
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[Refused], tuple[str, int]]:
        return type(self), (str(self), self.status)


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A TorchServe that runs.

    Args:
        management: URL of its management API, such as ``http://127.0.0.1:8081``.
        inference: URL where it predicts, such as ``http://127.0.0.1:8080``.
        grpc: URL where it predicts over gRPC, if anybody shall.
        access: Token and certificates for management.
        inference_access: Those for predictions.
    """

    management: str
    inference: str
    grpc: str | None = None
    access: Access = field(default_factory=Access)
    inference_access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        for name in ("management", "inference"):
            parts = urlsplit(getattr(self, name))
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise InvalidValue(f"ModelServer.{name}", getattr(self, name), "use a URL such as http://HOST:8081")

    @classmethod
    def connect(
        cls,
        management: str,
        inference: str,
        *,
        grpc: str | None = None,
        key_file: str | Path | None = None,
        ca_file: str | Path | None = None,
    ) -> ModelServer:
        """A server with its tokens from where they are kept: never from an argument.

        Args:
            management: As above, like ``inference`` and ``grpc``.
            inference: URL where it predicts.
            grpc: URL where it predicts over gRPC.
            key_file: The ``key_file.json`` that TorchServe writes where it was started, read for each request, as its
                tokens change; by default the environment variables :data:`MANAGEMENT_TOKEN` and
                :data:`INFERENCE_TOKEN`, where they are set.
            ca_file: Certificates of the authorities to trust.
        """

        def access(kind: str, variable: str) -> Access:
            token = _from_file(key_file, kind) if key_file is not None else os.environ.get(variable) or None
            return Access(token=token, ca_file=ca_file)

        return cls(
            management=management,
            inference=inference,
            grpc=grpc,
            access=access("management", MANAGEMENT_TOKEN),
            inference_access=access("inference", INFERENCE_TOKEN),
        )

    def models(self) -> dict[str, str]:
        """The file or URL of each model's default version, by name."""
        found: dict[str, str] = {}
        page: str | None = "0"
        while page is not None:
            query = {"limit": str(_PAGE), "next_page_token": page}
            told = self._call("listing its models", "GET", "/models", params=query)
            found |= {str(one["modelName"]): str(one["modelUrl"]) for one in told.get("models", ())}
            page = told.get("nextPageToken")
        return found

    def versions(self, model: str) -> tuple[Version, ...]:
        """All versions of a model; none if it is not known."""
        doing = f"describing {model}"
        try:
            default = str(self._call(doing, "GET", _path(model))[0]["modelVersion"])
            described = self._call(doing, "GET", _path(model, "all"))
        except Refused as refused:
            if refused.status == 404:
                return ()
            raise
        return tuple(read_version(one, default=default) for one in described)

    def describe(self, model: str, version: str) -> Version:
        """One version.

        Raises:
            Refused: If there is none.
        """
        doing = f"describing version {version} of {model}"
        described = self._call(doing, "GET", _path(model, version))[0]
        default = self._call(doing, "GET", _path(model))[0]
        return read_version(described, default=str(default["modelVersion"]))

    def about(self, model: str, version: str, *, timeout_seconds: float = _SECONDS) -> Mapping[str, Any]:
        """What the handler itself says of a version, in one of its workers; empty if it says nothing.

        One of :func:`longshore.packaging.package_torchserve` tells the digest of its model and its process.
        """
        told = self._call(
            f"asking version {version} of {model} about itself",
            "GET",
            _path(model, version),
            params={"customized": "true"},
            timeout_seconds=timeout_seconds,
        )
        about = told[0].get("customizedMetadata") if isinstance(told, list) and told else None
        return about if isinstance(about, Mapping) else {}

    def register(self, archive: str, *, workers: int = 1, timeout_seconds: float = 300) -> str:
        """Register a version, whose workers load it from now on. The first one of a model becomes its default.

        TorchServe could be told to answer once they have, but as long as it waits one of its few threads serves nobody,
        clients that ask for predictions among them. So look (:meth:`describe`) instead.

        Args:
            archive: Name of a file in the server's model store, or a URL that it downloads.
            workers: Workers to start, where the archive does not say how many.
            timeout_seconds: For the download.

        Returns:
            What TorchServe said.

        Raises:
            InvalidValue: If it is neither a file's name nor a URL.
            Refused: If it cannot, with its own words.
        """
        parts = urlsplit(archive)
        if ".." in archive or (not parts.scheme and "/" in archive):
            raise InvalidValue("archive", archive, "use the name of a file in the model store, or an http or file URL")
        told = self._call(
            f"registering {parts._replace(query='').geturl()}",
            "POST",
            "/models",
            params={"url": archive, "initial_workers": str(workers), "synchronous": "false"},
            timeout_seconds=timeout_seconds,
        )
        return str(told.get("status", ""))

    def scale(self, model: str, version: str, min_workers: int, max_workers: int | None = None) -> str:
        """Give a version more or fewer workers, from now on. One that is taken away answers what it does with an error.

        Args:
            model: Name of the model.
            version: The version.
            min_workers: So many at least; 0 stops it, and it answers 503.
            max_workers: And at most; None is as many.

        Returns:
            What TorchServe said.
        """
        if min_workers < 0 or (max_workers is not None and max_workers < min_workers):
            raise InvalidValue("max_workers", max_workers, f"use at least min_workers, which is {min_workers}")
        most = min_workers if max_workers is None else max_workers
        params = {"min_worker": str(min_workers), "max_worker": str(most), "synchronous": "false"}
        told = self._call(f"scaling version {version} of {model}", "PUT", _path(model, version), params=params)
        return str(told.get("status", ""))

    def set_default(self, model: str, version: str) -> None:
        """Have a version answer those who name none; requests that have come in by then stay with the old one."""
        doing = f"making version {version} of {model} the default"
        self._call(doing, "PUT", f"{_path(model, version)}/set-default")

    def unregister(self, model: str, version: str) -> None:
        """Forget a version, at once: what it has not answered yet is answered with an error.

        The default is refused as long as there are others. An archive that TorchServe downloaded is deleted.
        """
        self._call(f"unregistering version {version} of {model}", "DELETE", _path(model, version), timeout_seconds=150)

    def _call(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout_seconds: float = _SECONDS,
    ) -> Any:
        endpoint = Endpoint(name="torchserve", url=self.management, model="-", revision="-")
        http = Http(endpoint, self.access)
        try:
            response = http.send(method, path, params=params, timeout_seconds=timeout_seconds)
        finally:
            http.close()
        if not 200 <= response.status_code < 300:
            raise Refused(f"{self.management}: {doing}: {_told(response)}", response.status_code)
        try:
            return response.json()
        except ValueError as error:
            raise DeployError(
                f"{self.management}: {doing}: what answers there is not TorchServe's management: {response.text[:200]}"
            ) from error


def _path(model: str, version: str | None = None) -> str:
    return "/models/" + "/".join(quote(part, safe="") for part in (model, version) if part is not None)


def _told(response: requests.Response) -> str:
    """TorchServe's own words, and what to do about them."""
    said = words_of(response.text) or response.reason
    if "InvalidKeyException" in response.text:
        said += f". Give its token for management: in the environment variable {MANAGEMENT_TOKEN}, or by key_file"
    elif response.status_code == 405:
        said += ". It registers and unregisters models only if its config.properties says enable_model_api=true"
    elif "does not match any allowed URL" in said:
        said += ". Its config.properties says from where archives may come: allowed_urls"
    elif "Model file already exists" in said:
        said += ". It lies in its model store already: register it by that name, or remove it"
    return f"{said} ({response.status_code})"


def _from_file(file: str | Path, kind: str) -> Callable[[], str]:
    def read() -> str:
        try:
            return str(json.loads(Path(file).read_text(encoding="utf-8"))[kind]["key"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            # not what is in it
            raise ConfigError(f"{file} cannot be read as TorchServe's key_file.json: {type(error).__name__}") from None

    return read
