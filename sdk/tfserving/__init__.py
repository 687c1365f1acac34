"""A TensorFlow Serving that runs already: what it has loaded, and how to have it serve other versions.

A server is told all it shall serve at once: a model that is left out is unloaded. And it refuses a label on a version
that is not available, together with everything else that it was told in the same request. So a change is made in steps:
load what is new beside what serves, wait for it, move the labels, and only then unload.

Sources: github.com/tensorflow/serving (tensorflow_serving/apis, model_servers/server_core.cc and
get_model_status_impl.cc).
"""

from longshore.packaging.tfserving import ServedModel
from longshore.tfserving.server import TensorFlowServing, VersionStatus
from longshore.tfserving.switch import (
    OUTPUT,
    Switched,
    label_traffic,
    reload,
    smoke_test,
    switch_version,
    tensor_rows,
)

__all__ = [
    "OUTPUT",
    "ServedModel",
    "Switched",
    "TensorFlowServing",
    "VersionStatus",
    "label_traffic",
    "reload",
    "smoke_test",
    "switch_version",
    "tensor_rows",
]
