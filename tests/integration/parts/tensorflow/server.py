"""A stand-in for TensorFlow Serving, whose binary no registry has: gRPC from its published protocol, and REST.

It is as strict as the real one: about types, shapes and names of inputs. Models: ``half_plus_two``, which TensorFlow
Serving comes with; ``whole``, which takes rows of four numbers; ``columns``, which takes an input for each column.
"""

import json
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np

place = tempfile.TemporaryDirectory()
options = [f"--{kind}_out={place.name}" for kind in ("python", "grpc_python")]
protos = Path(__file__).parent
subprocess.run(
    [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *options, "framework.proto", "serving.proto"], check=True
)
sys.path.insert(0, place.name)

import framework_pb2 as framework  # noqa: E402
import serving_pb2 as serving  # noqa: E402
import serving_pb2_grpc as rpc  # noqa: E402

FIELDS = {"DT_FLOAT": "float_val", "DT_INT64": "int64_val", "DT_STRING": "string_val"}
LAYOUTS = {"DT_FLOAT": np.float32, "DT_INT64": np.int64, "DT_STRING": object}


def half_plus_two(x):
    return {"y": ("DT_FLOAT", x / 2 + 2)}


def whole(dense_input):
    return {"dense": ("DT_FLOAT", dense_input[:, :3] / dense_input.sum(axis=1, keepdims=True))}


def columns(a, n, s):
    labels = np.array([text + b"!" for text in s[:, 0]], dtype=object)
    return {"score": ("DT_FLOAT", a + n), "label": ("DT_STRING", labels)}


MODELS = {
    "half_plus_two": (half_plus_two, {"x": ("DT_FLOAT", [-1])}, ["y"]),
    "whole": (whole, {"dense_input": ("DT_FLOAT", [-1, 4])}, ["dense"]),
    "columns": (
        columns,
        {"a": ("DT_FLOAT", [-1, 1]), "n": ("DT_INT64", [-1, 1]), "s": ("DT_STRING", [-1, 1])},
        ["score", "label"],
    ),
}


class Refused(Exception):
    def __init__(self, code, message):
        self.code = code
        super().__init__(message)


def find(name, version=None, label=None):
    if name not in MODELS or version not in (None, 123) or label not in (None, "stable"):
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
    return MODELS[name]


def find_spec(spec):
    choice = spec.WhichOneof("version_choice")
    if spec.signature_name not in ("", "serving_default"):
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Serving signature name {spec.signature_name!r} not found")
    version = spec.version.value if choice == "version" else None
    return find(spec.name, version, spec.version_label if choice == "version_label" else None)


def run(model, inputs):
    work, takes, _ = model
    if inputs.keys() != takes.keys():
        raise Refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(inputs)}!={len(takes)} ... inputs: {sorted(takes)}",
        )
    for name, (dtype, shape) in takes.items():
        array = inputs[name]
        fits = array.ndim == len(shape) and all(
            want in (-1, size) for want, size in zip(shape, array.shape, strict=True)
        )
        if array.dtype != LAYOUTS[dtype] or not fits:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"input {name} expects {dtype}{shape}, got {array.dtype}{array.shape}"
            )
    return work(**inputs)


def array_of(tensor):
    dtype = framework.DataType.Name(tensor.dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, LAYOUTS[dtype]).reshape(shape)
    return np.array(list(getattr(tensor, FIELDS[dtype])), LAYOUTS[dtype]).reshape(shape)


def tensor_of(dtype, array):
    tensor = framework.TensorProto(dtype=framework.DataType.Value(dtype))
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    # in lists, as the real one answers
    getattr(tensor, FIELDS[dtype]).extend(array.ravel().tolist())
    return tensor


def info_of(name, dtype, shape):
    info = framework.TensorInfo(name=f"{name}:0", dtype=framework.DataType.Value(dtype))
    for size in shape:
        info.tensor_shape.dim.add(size=size)
    return info


def coded(method):
    def answer(self, request, context):
        try:
            return method(self, request)
        except Refused as error:
            context.abort(error.code, str(error))

    return answer


class Prediction(rpc.PredictionServiceServicer):
    @coded
    def Predict(self, request):  # noqa: N802 - the protocol's name, as below
        outputs = run(find_spec(request.model_spec), {name: array_of(one) for name, one in request.inputs.items()})
        answer = serving.PredictResponse(model_spec=request.model_spec)
        for name, (dtype, array) in outputs.items():
            answer.outputs[name].CopyFrom(tensor_of(dtype, array))
        return answer

    @coded
    def GetModelMetadata(self, request):  # noqa: N802
        _, takes, _ = find_spec(request.model_spec)
        told = serving.SignatureDefMap()
        signature = told.signature_def["serving_default"]
        for name, (dtype, shape) in takes.items():
            signature.inputs[name].CopyFrom(info_of(name, dtype, shape))
        answer = serving.GetModelMetadataResponse(model_spec=request.model_spec)
        answer.metadata["signature_def"].Pack(told)
        return answer


class Model(rpc.ModelServiceServicer):
    @coded
    def GetModelStatus(self, request):  # noqa: N802
        find_spec(request.model_spec)
        available = serving.ModelVersionStatus(version=123, state="AVAILABLE")
        return serving.GetModelStatusResponse(model_version_status=[available])


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(self.about)

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(lambda: self.predict(content))

    def reply(self, work):
        codes = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404}
        try:
            status, answer = 200, work()
        except Refused as error:
            status, answer = codes[error.code], {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def model(self):
        path, _, verb = self.path.removeprefix("/v1/models/").partition(":")
        name, *rest = path.removesuffix("/metadata").split("/")
        version = int(rest[1]) if rest[:1] == ["versions"] else None
        return find(name, version, rest[1] if rest[:1] == ["labels"] else None), verb

    def about(self):
        (_, takes, _), _ = self.model()
        if not self.path.endswith("/metadata"):
            status = {"error_code": "OK", "error_message": ""}
            return {"model_version_status": [{"version": "123", "state": "AVAILABLE", "status": status}]}
        inputs = {
            name: {
                "dtype": dtype,
                "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in shape], "unknown_rank": False},
                "name": f"{name}:0",
            }
            for name, (dtype, shape) in takes.items()
        }
        return {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": inputs}}}}}

    def predict(self, content):
        model, _ = self.model()
        takes = model[1]
        rows = content["instances"]
        if len(takes) == 1:
            rows = [{next(iter(takes)): row} for row in rows]
        if any(row.keys() != takes.keys() for row in rows):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "Failed to process element: 0 of 'instances' list")
        arrays = {}
        for name, (dtype, _) in takes.items():
            values = [row[name] for row in rows]
            flat = np.array(values, dtype=object)
            if dtype == "DT_STRING":
                flat = np.vectorize(str.encode, otypes=[object])(flat)
            elif dtype == "DT_INT64" and not all(isinstance(value, int) for value in flat.ravel()):
                raise Refused(
                    grpc.StatusCode.INVALID_ARGUMENT, "JSON Value: 1.0 Type: Number is not of expected type: int64"
                )
            try:
                arrays[name] = flat.astype(LAYOUTS[dtype])
            except ValueError as error:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"JSON Value: {error}") from error
        outputs = run(model, arrays)
        plain = {
            name: [v.decode() for v in array] if dtype == "DT_STRING" else array.tolist()
            for name, (dtype, array) in outputs.items()
        }
        if len(plain) == 1:
            return {"predictions": next(iter(plain.values()))}
        return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}

    def log_message(self, *_):
        pass


server = grpc.server(ThreadPoolExecutor(4))
rpc.add_PredictionServiceServicer_to_server(Prediction(), server)
rpc.add_ModelServiceServicer_to_server(Model(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
web = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
threading.Thread(target=web.serve_forever, daemon=True).start()
print(json.dumps({"grpc": port, "rest": web.server_port}), flush=True)
sys.stdin.read()
