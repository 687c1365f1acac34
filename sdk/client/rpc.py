"""gRPC on a channel that is kept: where an endpoint speaks it, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from longshore.client.access import Access, tls_name
from longshore.client.refusals import NotReached
from longshore.errors import DeployError, InputError, InvalidValue, LongshoreError, MissingExtra
from longshore.spec import Endpoint

if TYPE_CHECKING:
    import grpc

__all__ = ["Channel", "Target", "refused_rpc", "target_of"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where gRPC is spoken.

    Args:
        url: As the endpoint has it, for messages.
        address: Host and port.
        secure: Whether over TLS.
        options: Of the channel.
        metadata: Sent with every call.
    """

    url: str
    address: str
    secure: bool
    options: tuple[tuple[str, Any], ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


def target_of(endpoint: Endpoint) -> Target:
    """Where an endpoint speaks gRPC.

    Raises:
        InvalidValue: If its address has a path.
    """
    url = endpoint.grpc_url or endpoint.url
    parts = urlsplit(url)
    if parts.path.strip("/"):
        raise InvalidValue("Endpoint.url", url, "gRPC has no paths below an address")
    secure = parts.scheme in ("https", "grpcs")
    headers = {name.lower(): value for name, value in endpoint.headers.items()}
    authority = headers.pop("host", None)
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # what failed is told, and not asked again behind the caller's back
        ("grpc.enable_retries", 0),
        # a proxy set for the internet has no business with a cluster's or this machine's addresses
        ("grpc.enable_http_proxy", 0),
    ]
    if authority is not None:
        options.append(("grpc.default_authority", authority))
        if secure and tls_name(endpoint, url) is None:
            options.append(("grpc.ssl_target_name_override", parts.hostname))
    address = parts.netloc if parts.port is not None else f"{parts.netloc}:{443 if secure else 80}"
    return Target(url=url, address=address, secure=secure, options=tuple(options), metadata=headers)


def refused_rpc(url: str, error: grpc.RpcError) -> LongshoreError:
    """The error to raise for a call that failed.

    Args:
        url: What was asked.
        error: What gRPC raised.
    """
    import grpc

    code, said = error.code(), error.details() or "no reason given"
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return InputError(f"{url} answered {code.name}: {said}")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        said += ": give a token that is allowed there"
    kind = NotReached if code is grpc.StatusCode.UNAVAILABLE else DeployError
    return kind(f"{url} answered {code.name}: {said}")


class Channel:
    """Calls methods of one endpoint.

    Args:
        endpoint: Where to ask.
        access: Token and certificates.

    Attributes:
        url: Where, for messages.

    Raises:
        ConfigError: If a certificate cannot be read.
        MissingExtra: If grpcio is not installed.
    """

    def __init__(self, endpoint: Endpoint, access: Access) -> None:
        try:
            import grpc
        except ModuleNotFoundError as error:
            raise MissingExtra("predicting over gRPC", "grpcio", "grpc") from error
        target = target_of(endpoint)
        self.url, self._metadata, self._access = target.url, target.metadata, access
        if target.secure:
            access.trust()
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_content(access.ca_file),
                private_key=_content(access.key_file or access.cert_file),
                certificate_chain=_content(access.cert_file),
            )
            self._channel = grpc.secure_channel(target.address, credentials, target.options)
        else:
            self._channel = grpc.insecure_channel(target.address, target.options)

    def call(self, method: str, message: Any, answer: type[Any], timeout_seconds: float) -> Any:
        """Call a method.

        Args:
            method: Its full name, ``/package.Service/Method``.
            message: The request.
            answer: Class of its answer.
            timeout_seconds: How long to wait.

        Raises:
            DeployError: If nothing answers, or it fails by no fault of the request.
            InputError: If the request is refused.
        """
        import grpc

        try:
            return self.try_call(method, message, answer, timeout_seconds)
        except grpc.RpcError as error:
            raise refused_rpc(self.url, error) from error

    def try_call(self, method: str, message: Any, answer: type[Any], timeout_seconds: float) -> Any:
        """The same, raising gRPC's own error."""
        call = self._channel.unary_unary(
            method, request_serializer=lambda one: one.SerializeToString(), response_deserializer=answer.FromString
        )
        metadata = {**self._metadata, **{name.lower(): text for name, text in self._access.headers().items()}}
        return call(message, timeout=timeout_seconds, metadata=tuple(metadata.items()))

    def answers(self, method: str, message: Any, answer: type[Any], timeout_seconds: float) -> tuple[bool, Any]:
        """Whether anybody is there who knows what is asked about, and the answer; None where the method is not known.

        Args:
            method: A method that tells about the model.
            message: The request.
            answer: Class of its answer.
            timeout_seconds: How long to wait.
        """
        import grpc

        try:
            return True, self.try_call(method, message, answer, timeout_seconds)
        except grpc.RpcError as error:
            # a server that does not know the method is there all the same
            return error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN), None

    def close(self) -> None:
        """End its connections."""
        self._channel.close()


def _content(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()
