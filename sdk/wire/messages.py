"""The messages of gRPC: of the Open Inference Protocol, of the servers that have their own, and of its health check.

The configuration files of TensorFlow Serving and Triton are such messages too, written as text.

They stand here as a table and not as generated code. protobuf keeps one description of each name in its default pool,
and kserve, tritonclient and others bring modules generated from their own copies of the same protocol: whichever is
imported second fails as soon as the copies differ. These live in a pool of their own, beside any of them.

Fields that nothing here reads (the parameters of requests and tensors) are left out: protobuf skips what it does not
know. Some types have other names than in the protocol, a map is a list of its entries, an enum an int32, and one field
of several is not enforced: none of that shows in what is sent. The numbers and kinds of fields do, and those are the
protocol's.

Sources: github.com/kserve/open-inference-protocol (gRPC), github.com/grpc/grpc (doc/health-checking.md),
github.com/SeldonIO/seldon-core (v1.18.2, proto/prediction.proto), github.com/tensorflow/serving
(tensorflow_serving/apis, config, sources/storage_path, servables/tensorflow), github.com/tensorflow/tensorflow
(core/framework, core/protobuf), github.com/triton-inference-server/common (protobuf/model_config.proto),
github.com/pytorch/serve (v0.12.0, frontend/server/src/main/resources/proto/inference.proto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

__all__ = [
    "HEALTH",
    "INFERENCE",
    "SELDON",
    "TENSORFLOW",
    "TENSORFLOW_SERVING",
    "TORCHSERVE",
    "TRITON",
    "DecodeError",
    "message",
]

INFERENCE: Final = "inference"
"""Package of the Open Inference Protocol."""

HEALTH: Final = "grpc.health.v1"
"""Package of gRPC's health check."""

SELDON: Final = "seldon.protos"
"""Package of Seldon Core 1."""

TENSORFLOW: Final = "tensorflow"
"""Package of TensorFlow's tensors."""

TENSORFLOW_SERVING: Final = "tensorflow.serving"
"""Package of TensorFlow Serving."""

TORCHSERVE: Final = "org.pytorch.serve.grpc.inference"
"""Package of TorchServe's predictions."""

TRITON: Final = "triton"
"""The configuration of models on Triton; its own package is that of the Open Inference Protocol."""

_TENSOR: Final = ("1 string name", "2 string datatype", "3 repeated int64 shape")
_TRITON_TENSOR: Final = ("1 string name", "2 DataType data_type", "5 ModelTensorReshape reshape")

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
        "HealthCheckResponse": ("1 int32 status",),
    },
    TENSORFLOW: {
        "TensorProto": (
            "1 int32 dtype",
            "2 TensorShapeProto tensor_shape",
            "4 bytes tensor_content",
            "5 repeated float float_val",
            "6 repeated double double_val",
            "7 repeated int32 int_val",
            "8 repeated bytes string_val",
            "10 repeated int64 int64_val",
            "11 repeated bool bool_val",
            "13 repeated int32 half_val",
            "16 repeated uint32 uint32_val",
            "17 repeated uint64 uint64_val",
        ),
        "TensorShapeProto": ("2 repeated Dim dim", "3 bool unknown_rank"),
        "Dim": ("1 int64 size",),
        "SignatureDef": ("1 repeated TensorInfoEntry inputs", "2 repeated TensorInfoEntry outputs"),
        "TensorInfoEntry": ("1 string key", "2 TensorInfo value"),
        "TensorInfo": ("1 string name", "2 int32 dtype", "3 TensorShapeProto tensor_shape"),
    },
    TENSORFLOW_SERVING: {
        "PredictRequest": (
            "1 ModelSpec model_spec",
            "2 repeated TensorEntry inputs",
            "3 repeated string output_filter",
        ),
        "PredictResponse": ("1 repeated TensorEntry outputs", "2 ModelSpec model_spec"),
        "ModelSpec": ("1 string name", "2 Int64Value version", "3 string signature_name", "4 string version_label"),
        "Int64Value": ("1 int64 value",),
        "TensorEntry": ("1 string key", "2 tensorflow.TensorProto value"),
        "GetModelMetadataRequest": ("1 ModelSpec model_spec", "2 repeated string metadata_field"),
        "GetModelMetadataResponse": ("1 ModelSpec model_spec", "2 repeated MetadataEntry metadata"),
        "MetadataEntry": ("1 string key", "2 Any value"),
        "Any": ("1 string type_url", "2 bytes value"),
        "SignatureDefMap": ("1 repeated SignatureDefEntry signature_def",),
        "SignatureDefEntry": ("1 string key", "2 tensorflow.SignatureDef value"),
        "GetModelStatusRequest": ("1 ModelSpec model_spec",),
        "GetModelStatusResponse": ("1 repeated ModelVersionStatus model_version_status",),
        "ModelVersionStatus": ("1 int64 version", "2 int32 state", "3 StatusProto status"),
        "StatusProto": ("1 int32 error_code", "2 string error_message"),
        "ReloadConfigRequest": ("1 ModelServerConfig config",),
        "ReloadConfigResponse": ("1 StatusProto status",),
        "PredictionLog": ("6 PredictLog predict_log",),
        "PredictLog": ("1 PredictRequest request",),
        "ModelServerConfig": ("1 ModelConfigList model_config_list",),
        "ModelConfigList": ("1 repeated ModelConfig config",),
        "ModelConfig": (
            "1 string name",
            "2 string base_path",
            "4 string model_platform",
            "7 ServableVersionPolicy model_version_policy",
            "8 repeated VersionLabelsEntry version_labels",
        ),
        "VersionLabelsEntry": ("1 string key", "2 int64 value"),
        "ServableVersionPolicy": ("100 Latest latest", "101 All all", "102 Specific specific"),
        "Latest": ("1 uint32 num_versions",),
        "All": (),
        "Specific": ("1 repeated int64 versions",),
        "BatchingParameters": (
            "1 Int64Value max_batch_size",
            "2 Int64Value batch_timeout_micros",
            "3 Int64Value max_enqueued_batches",
            "4 Int64Value num_batch_threads",
            "6 repeated int64 allowed_batch_sizes",
            "7 bool pad_variable_length_inputs",
        ),
        "MonitoringConfig": ("1 PrometheusConfig prometheus_config",),
        "PrometheusConfig": ("1 bool enable", "2 string path"),
    },
    TRITON: {
        "ModelConfig": (
            "1 string name",
            "2 string platform",
            "17 string backend",
            "3 ModelVersionPolicy version_policy",
            "4 int32 max_batch_size",
            "5 repeated ModelInput input",
            "6 repeated ModelOutput output",
            "11 ModelDynamicBatching dynamic_batching",
            "7 repeated ModelInstanceGroup instance_group",
        ),
        "ModelVersionPolicy": ("1 Latest latest", "2 All all", "3 Specific specific"),
        "Latest": ("1 uint32 num_versions",),
        "All": (),
        "Specific": ("1 repeated int64 versions",),
        "ModelInput": (
            "1 string name",
            "2 DataType data_type",
            "4 repeated int64 dims",
            "5 ModelTensorReshape reshape",
        ),
        "ModelOutput": (
            "1 string name",
            "2 DataType data_type",
            "3 repeated int64 dims",
            "5 ModelTensorReshape reshape",
        ),
        "ModelTensorReshape": ("1 repeated int64 shape",),
        "ModelDynamicBatching": ("1 repeated int32 preferred_batch_size", "2 uint64 max_queue_delay_microseconds"),
        "ModelInstanceGroup": ("2 int32 count", "4 Kind kind"),
    },
    TORCHSERVE: {
        "Empty": (),
        "TorchServeHealthResponse": ("1 string health",),
        "PredictionsRequest": ("1 string model_name", "2 string model_version", "3 repeated InputEntry input"),
        "InputEntry": ("1 string key", "2 bytes value"),
        "PredictionResponse": ("1 bytes prediction",),
    },
    SELDON: {
        "SeldonMessage": (
            "1 Status status",
            "2 Meta meta",
            "3 DefaultData data",
            "4 bytes binData",
            "5 string strData",
            "6 google.protobuf.Value jsonData",
        ),
        "DefaultData": (
            "1 repeated string names",
            "2 Tensor tensor",
            "3 google.protobuf.ListValue ndarray",
            "4 tensorflow.TensorProto tftensor",
        ),
        "Tensor": ("1 repeated int32 shape", "2 repeated double values"),
        "Meta": (
            "1 string puid",
            "2 repeated TagsEntry tags",
            "3 repeated RoutingEntry routing",
            "4 repeated RequestPathEntry requestPath",
        ),
        "TagsEntry": ("1 string key", "2 google.protobuf.Value value"),
        "RoutingEntry": ("1 string key", "2 int32 value"),
        "RequestPathEntry": ("1 string key", "2 string value"),
        "Status": ("1 int32 code", "2 string info", "3 string reason", "4 int32 status"),
        "Feedback": (
            "1 SeldonMessage request",
            "2 SeldonMessage response",
            "3 float reward",
            "4 SeldonMessage truth",
        ),
        "SeldonModelMetadataRequest": ("1 string name",),
        "SeldonModelMetadata": ("1 string name", "2 repeated string versions", "6 repeated CustomEntry custom"),
        "CustomEntry": ("1 string key", "2 string value"),
    },
}


_TRITON_TYPES: Final = "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"

# enums that people read the names of
_ENUMS: Final[Mapping[str, Mapping[str, Mapping[str, int]]]] = {
    TRITON: {
        "DataType": {f"TYPE_{name}": number for number, name in enumerate(_TRITON_TYPES.split())},
        "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
    },
}


def message(package: str, name: str) -> type[Any]:
    """The class of a message.

    Args:
        package: One of the packages above.
        name: The message's name in it.

    Raises:
        KeyError: If there is none.
    """
    found: type[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{name}"))
    return found


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    for package, messages in _MESSAGES.items():
        file = FileDescriptorProto(name=_file(package), package=package, syntax="proto3")
        for name, fields in messages.items():
            file.message_type.add(name=name, field=[_field(package, text) for text in fields])
        for name, values in _ENUMS.get(package, {}).items():
            file.enum_type.add(name=name).value.extend(
                EnumValueDescriptorProto(name=value, number=number) for value, number in values.items()
            )
        kinds = {text.split()[-2] for fields in messages.values() for text in fields}
        file.dependency.extend(sorted({_file(kind.rpartition(".")[0]) for kind in kinds if "." in kind}))
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _file(package: str) -> str:
    return f"longshore/{package}.proto" if package in _MESSAGES else str(struct_pb2.DESCRIPTOR.name)


def _field(package: str, text: str) -> FieldDescriptorProto:
    number, *repeated, kind, name = text.split()
    field = FieldDescriptorProto(name=name, number=int(number))
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if kind in _ENUMS.get(package, {}):
        field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{package}.{kind}"
    elif "." in kind or kind in _MESSAGES[package]:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{package}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    return field


_POOL: Final = _pool()
