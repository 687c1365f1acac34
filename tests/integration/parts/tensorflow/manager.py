"""TensorFlow Serving's rules of versions and labels, on the real TensorFlow: what its ServerCore does.

Sources: github.com/tensorflow/serving (tensorflow_serving/model_servers/server_core.cc, core/servable_state_monitor.cc,
core/aspired_versions_manager.cc, sources/storage_path/file_system_storage_path_source.cc).
"""

import os
import threading
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import grpc

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from google.protobuf import text_format
from parts_of_both import Refused
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2


def _all_of(*modules):
    return SimpleNamespace(**{name: getattr(one, name) for one in modules for name in dir(one) if name[0] != "_"})


framework = _all_of(tensor_pb2, types_pb2, meta_graph_pb2)
serving = _all_of(get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, model_pb2, predict_pb2)
rpc = _all_of(model_service_pb2_grpc, prediction_service_pb2_grpc)


class Version:
    """A version that was asked for: START, LOADING, AVAILABLE, UNLOADING or END."""

    def __init__(self, path):
        self.path, self.state, self.code, self.message = path, "START", 0, ""
        self.loaded, self.signatures = None, {}

    def load(self):
        """By TensorFlow, in its words where it cannot."""
        self.state = "LOADING"
        try:
            loaded = tf.saved_model.load(str(self.path), tags=["serve"])
            graphs = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes()).meta_graphs
            (graph,) = (one for one in graphs if "serve" in one.meta_info_def.tags)
        except Exception as error:
            self.code, self.message = getattr(error, "error_code", 2), str(error)
            self.state = "END"
            return
        self.signatures = {
            key: {name: (_name(one.dtype), _shape(one)) for name, one in signature.inputs.items()}
            for key, signature in graph.signature_def.items()
            if not key.startswith("__")
        }
        self.loaded, self.state = loaded, "AVAILABLE"


def _predict(loaded, **inputs):
    function = loaded.signatures["serving_default"]
    specs = function.structured_input_signature[1]
    given = {name: tf.constant(array, dtype=specs[name].dtype) for name, array in inputs.items()}
    try:
        answered = function(**given)
    except tf.errors.OpError as error:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, error.message) from error
    return {name: (_name(one.dtype.as_datatype_enum), one.numpy()) for name, one in answered.items()}


def _name(dtype):
    return types_pb2.DataType.Name(dtype)


def _shape(info):
    return [dim.size for dim in info.tensor_shape.dim]


class Manager:
    """Loads and unloads versions as it is configured."""

    def __init__(self, allow_labels_for_unavailable):
        self._allow = allow_labels_for_unavailable
        self._lock, self._changed = threading.RLock(), threading.Condition()
        self._versions, self._aspired, self._labels, self._config = defaultdict(dict), {}, {}, None

    def start(self, text):
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        self.reload(config)

    def find(self, name, version=None, label=None):
        with self._lock:
            if label is not None:
                if label not in self._labels.get(name, {}):
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
                version = self._labels[name][label]
            there = {number: one for number, one in self._versions[name].items() if one.state == "AVAILABLE"}
            if version is None and there:
                version = max(there)
            if version not in there:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise Refused(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
            found = there[version]
        return version, partial(_predict, found.loaded), found.signatures

    def status(self, name, version=None):
        with self._lock:
            told = [
                (number, one.state, one.code, one.message)
                for number, one in sorted(self._versions[name].items(), reverse=True)
                if version in (None, number)
            ]
        if not told and version is not None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}")
        if not told:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        return told

    def reload(self, config):
        if config.WhichOneof("config") != "model_config_list":
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "ServerModelConfig type not supported")
        models = {one.name: one for one in config.model_config_list.config}
        with self._lock:
            self._label(models)
            new = set(models) - set(self._aspired)
            for name in set(self._aspired) - set(models):
                self._aspire(name, {})
            for name, one in models.items():
                self._aspire(name, self._found(one))
        self._await(new)

    def _label(self, models):
        """Before anything is loaded; a label on what is not available refuses all that came with it."""
        labels = defaultdict(dict)
        for name, model in models.items():
            for label, version in model.version_labels.items():
                moves = self._labels.get(name, {}).get(label, version) != version
                one = self._versions[name].get(version)
                if (one is None or one.state != "AVAILABLE") and (moves or not self._allow):
                    raise Refused(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, "
                        "which is not currently available for inference",
                    )
                labels[name][label] = version
        self._labels = labels

    def _found(self, model):
        """The versions that its policy asks for, among those that lie there."""
        base = Path(model.base_path)
        there = {int(one.name): one for one in base.iterdir() if one.name.isdecimal()} if base.is_dir() else {}
        policy = model.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "specific":
            return {number: there[number] for number in policy.specific.versions if number in there}
        if kind == "all":
            return there
        return {number: there[number] for number in sorted(there)[-(policy.latest.num_versions or 1) :]}

    def _aspire(self, name, wanted):
        was, versions = self._aspired.pop(name, {}), self._versions[name]
        if wanted:
            self._aspired[name] = wanted
        # one that failed is not tried again unless it was given up meanwhile
        new = [
            number
            for number in sorted(wanted)
            if number not in versions or (versions[number].state == "END" and number not in was)
        ]
        for number in new:
            versions[number] = Version(wanted[number])
        threading.Thread(target=self._work, args=(name, [versions[number] for number in new]), daemon=True).start()

    def _work(self, name, loading):
        for one in loading:
            one.load()
            with self._changed:
                self._changed.notify_all()
        with self._lock:
            wanted = self._aspired.get(name, {})
            serves = [number for number in wanted if self._versions[name][number].state == "AVAILABLE"]
            # what serves goes once something else does, or nothing is wanted
            if wanted and not serves:
                return
            for number, one in self._versions[name].items():
                if number not in wanted and one.state == "AVAILABLE":
                    # requests under way hold what they ask
                    one.state, one.loaded = "END", None

    def _await(self, names):
        def settled(name):
            wanted = self._aspired.get(name, {})
            return [
                (n, self._versions[name][n]) for n in wanted if self._versions[name][n].state in ("AVAILABLE", "END")
            ]

        with self._changed:
            self._changed.wait_for(lambda: all(settled(name) for name in names if self._aspired.get(name)))
        failed = [
            f"{{name: {name} version: {number}}} due to error: {one.message}"
            for name in names
            if self._aspired.get(name)
            for number, one in settled(name)[:1]
            if one.state == "END"
        ]
        if failed:
            raise Refused(
                grpc.StatusCode.UNKNOWN,
                f"{len(failed)} servable(s) did not become available: {{{{{', '.join(failed)}}}}}",
            )
