"""A stand-in for TensorFlow Serving, whose binary no registry has: gRPC from its published protocol, and REST.

It is as strict as the real one: about types, shapes and names of inputs. Models: ``half_plus_two``, which TensorFlow
Serving comes with; ``whole``, which takes rows of four numbers; ``columns``, which takes an input for each column.

With ``--model_config_file`` it serves SavedModels instead, by the real TensorFlow, with versions, labels and reloads
(``manager.py``): then it takes the flags of the real one, and needs TensorFlow and tensorflow-serving-api.
"""

import argparse
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

protos = Path(__file__).parent
sys.path.insert(0, str(protos))

from parts_of_both import Refused  # noqa: E402

flags = argparse.ArgumentParser(allow_abbrev=False)
flags.add_argument("--port", type=int, default=0)
flags.add_argument("--rest_api_port", type=int, default=0)
flags.add_argument("--model_config_file")
flags.add_argument("--monitoring_config_file")
flags.add_argument("--max_num_load_retries", type=int, default=5)
flags.add_argument("--allow_version_labels_for_unavailable_models", type="true".__eq__, default=False)
given = flags.parse_args()

if given.model_config_file is None:
    place = tempfile.TemporaryDirectory()
    options = [f"--{kind}_out={place.name}" for kind in ("python", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *options, "framework.proto", "serving.proto"],
        check=True,
    )
    sys.path.insert(0, place.name)
    import framework_pb2 as framework
    import serving_pb2 as serving
    import serving_pb2_grpc as rpc
else:
    from manager import Manager, framework, rpc, serving

FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_UINT8": "int_val",
    "DT_INT32": "int_val",
    "DT_INT64": "int64_val",
    "DT_STRING": "string_val",
}
LAYOUTS = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_UINT8": np.uint8,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_STRING": object,
}


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


class Static:
    """The models above, each in version 123, with the label ``stable``."""

    def find(self, name, version=None, label=None):
        if name not in MODELS or version not in (None, 123):
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
        if label not in (None, "stable"):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        work, takes, _ = MODELS[name]
        return 123, work, {"serving_default": takes}

    def status(self, name, version=None):
        self.find(name, version)
        return [(123, "AVAILABLE", 0, "")]


def find_spec(spec):
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return served.find(spec.name, version, spec.version_label if choice == "version_label" else None)


def takes_of(signatures, name):
    if (name or "serving_default") not in signatures:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signatures[name or "serving_default"]


def run(work, takes, inputs):
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


def spec_of(asked, version):
    """What was asked for, as the version that answers."""
    spec = serving.ModelSpec(name=asked.name, signature_name=asked.signature_name)
    spec.version.value = version
    return spec


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
        version, work, signatures = find_spec(request.model_spec)
        takes = takes_of(signatures, request.model_spec.signature_name)
        outputs = run(work, takes, {name: array_of(one) for name, one in request.inputs.items()})
        answer = serving.PredictResponse(model_spec=spec_of(request.model_spec, version))
        for name, (dtype, array) in outputs.items():
            answer.outputs[name].CopyFrom(tensor_of(dtype, array))
        return answer

    @coded
    def GetModelMetadata(self, request):  # noqa: N802
        version, _, signatures = find_spec(request.model_spec)
        told = serving.SignatureDefMap()
        for key, takes in signatures.items():
            told.signature_def[key].SetInParent()
            for name, (dtype, shape) in takes.items():
                told.signature_def[key].inputs[name].CopyFrom(info_of(name, dtype, shape))
        answer = serving.GetModelMetadataResponse(model_spec=spec_of(request.model_spec, version))
        answer.metadata["signature_def"].Pack(told)
        return answer


class Model(rpc.ModelServiceServicer):
    @coded
    def GetModelStatus(self, request):  # noqa: N802
        spec = request.model_spec
        # like the real one: of a version, or of all, and whatever the label
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        answer = serving.GetModelStatusResponse()
        for number, state, code, message in served.status(spec.name, version):
            one = answer.model_version_status.add(version=number, state=state)
            one.status.error_code, one.status.error_message = code, message
        return answer

    @coded
    def HandleReloadConfigRequest(self, request):  # noqa: N802
        served.reload(request.config)
        return serving.ReloadConfigResponse()


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(self.about)

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(lambda: self.predict(content))

    def reply(self, work):
        codes = {
            grpc.StatusCode.INVALID_ARGUMENT: 400,
            grpc.StatusCode.FAILED_PRECONDITION: 400,
            grpc.StatusCode.NOT_FOUND: 404,
        }
        try:
            status, answer = 200, work()
        except Refused as error:
            status, answer = codes[error.code], {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def asked(self):
        path, _, _ = self.path.removeprefix("/v1/models/").partition(":")
        name, *rest = path.removesuffix("/metadata").split("/")
        version = int(rest[1]) if rest[:1] == ["versions"] else None
        return name, version, rest[1] if rest[:1] == ["labels"] else None

    def about(self):
        if self.path == metrics_path:
            return {}
        name, version, label = self.asked()
        if not self.path.endswith("/metadata"):
            return {
                "model_version_status": [
                    {
                        "version": str(number),
                        "state": state,
                        "status": {"error_code": CODES.get(code, "UNKNOWN"), "error_message": message},
                    }
                    for number, state, code, message in served.status(name, version)
                ]
            }
        _, _, signatures = served.find(name, version, label)
        told = {key: {"inputs": self.inputs(takes)} for key, takes in signatures.items()}
        return {"metadata": {"signature_def": {"signature_def": told}}}

    def inputs(self, takes):
        return {
            name: {
                "dtype": dtype,
                "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in shape], "unknown_rank": False},
                "name": f"{name}:0",
            }
            for name, (dtype, shape) in takes.items()
        }

    def predict(self, content):
        _, work, signatures = served.find(*self.asked())
        takes = takes_of(signatures, content.get("signature_name", ""))
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
        outputs = run(work, takes, arrays)
        plain = {
            name: [v.decode() for v in array] if dtype == "DT_STRING" else array.tolist()
            for name, (dtype, array) in outputs.items()
        }
        if len(plain) == 1:
            return {"predictions": next(iter(plain.values()))}
        return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}

    def log_message(self, *_):
        pass


CODES = {0: "OK", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 9: "FAILED_PRECONDITION", 15: "DATA_LOSS"}
metrics_path = "/monitoring/prometheus/metrics" if given.monitoring_config_file else None
if given.model_config_file is None:
    served = Static()
else:
    served = Manager(given.allow_version_labels_for_unavailable_models)
    try:
        # ports are opened once every model has a version
        served.start(Path(given.model_config_file).read_text())
    except Refused as error:
        print(f"Failed to start server. Error: {error.code.name}: {error}", flush=True)
        sys.exit(255)
server = grpc.server(ThreadPoolExecutor(16))
rpc.add_PredictionServiceServicer_to_server(Prediction(), server)
rpc.add_ModelServiceServicer_to_server(Model(), server)
port = server.add_insecure_port(f"127.0.0.1:{given.port}")
server.start()
web = ThreadingHTTPServer(("127.0.0.1", given.rest_api_port), Rest)
threading.Thread(target=web.serve_forever, daemon=True).start()
print(json.dumps({"grpc": port, "rest": web.server_port}), flush=True)
sys.stdin.read()
