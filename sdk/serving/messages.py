"""The messages of the Open Inference Protocol over gRPC, and of gRPC's health check.

They stand here as a table and not as generated code. protobuf keeps one description of each name in its default pool,
and kserve, tritonclient and others bring modules generated from their own copies of the same protocol: whichever is
imported second fails as soon as the copies differ. These live in a pool of their own, beside any of them.

Fields that nothing here reads (the parameters of requests and tensors) are left out: protobuf skips what it does not
know. The names of tensors' types are shorter than the protocol's, which does not show in what is sent; the numbers and
kinds of fields do, and those are the protocol's.

Sources: github.com/kserve/open-inference-protocol (gRPC), github.com/grpc/grpc (doc/health-checking.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

__all__ = ["HEALTH", "INFERENCE", "DecodeError", "message"]

INFERENCE: Final = "inference"
"""Package of the Open Inference Protocol."""

HEALTH: Final = "grpc.health.v1"
"""Package of gRPC's health check."""

_TENSOR: Final = ("1 string name", "2 string datatype", "3 repeated int64 shape")

# each field as: number, "repeated" where it is, type, name
_MESSAGES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    INFERENCE: {
        "ServerLiveRequest": (),
        "ServerLiveResponse": ("1 bool live",),
        "ServerReadyRequest": (),
        "ServerReadyResponse": ("1 bool ready",),
        "ModelReadyRequest": ("1 string name", "2 string version"),
        "ModelReadyResponse": ("1 bool ready",),
        "ServerMetadataRequest": (),
        "ServerMetadataResponse": ("1 string name", "2 string version", "3 repeated string extensions"),
        "ModelMetadataRequest": ("1 string name", "2 string version"),
        "ModelMetadataResponse": (
            "1 string name",
            "2 repeated string versions",
            "3 string platform",
            "4 repeated TensorMetadata inputs",
            "5 repeated TensorMetadata outputs",
        ),
        "TensorMetadata": _TENSOR,
        "ModelInferRequest": (
            "1 string model_name",
            "2 string model_version",
            "3 string id",
            "5 repeated InferInputTensor inputs",
            "6 repeated InferRequestedOutputTensor outputs",
            "7 repeated bytes raw_input_contents",
        ),
        "InferInputTensor": (*_TENSOR, "5 InferTensorContents contents"),
        "InferRequestedOutputTensor": ("1 string name",),
        "ModelInferResponse": (
            "1 string model_name",
            "2 string model_version",
            "3 string id",
            "5 repeated InferOutputTensor outputs",
            "6 repeated bytes raw_output_contents",
        ),
        "InferOutputTensor": (*_TENSOR, "5 InferTensorContents contents"),
        "InferTensorContents": (
            "1 repeated bool bool_contents",
            "2 repeated int32 int_contents",
            "3 repeated int64 int64_contents",
            "4 repeated uint32 uint_contents",
            "5 repeated uint64 uint64_contents",
            "6 repeated float fp32_contents",
            "7 repeated double fp64_contents",
            "8 repeated bytes bytes_contents",
        ),
    },
    HEALTH: {
        "HealthCheckRequest": ("1 string service",),
        # an enum, which is sent as an int32 is
        "HealthCheckResponse": ("1 int32 status",),
    },
}


def message(package: str, name: str) -> type[Any]:
    """The class of a message.

    Args:
        package: :data:`INFERENCE` or :data:`HEALTH`.
        name: The message's name in it.

    Raises:
        KeyError: If there is none.
    """
    found: type[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{name}"))
    return found


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for package, messages in _MESSAGES.items():
        file = FileDescriptorProto(name=f"longshore/{package}.proto", package=package, syntax="proto3")
        for name, fields in messages.items():
            file.message_type.add(name=name, field=[_field(package, text) for text in fields])
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _field(package: str, text: str) -> FieldDescriptorProto:
    number, *repeated, kind, name = text.split()
    field = FieldDescriptorProto(name=name, number=int(number))
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if kind in _MESSAGES[package]:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    return field


_POOL: Final = _pool()
