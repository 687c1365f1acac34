"""The model in KServe's Python server, as KServe's own server for scikit-learn has it: MODEL PORT."""

import sys

import joblib
import kserve
import uvicorn
from kserve.utils.utils import get_predict_input, get_predict_response

# it would listen on all addresses
_init = uvicorn.Config.__init__
uvicorn.Config.__init__ = lambda self, app, *, host, **options: _init(self, app, host="127.0.0.1", **options)


class Iris(kserve.Model):
    """One scikit-learn model."""

    def __init__(self, path):
        super().__init__("iris")
        self.model = joblib.load(path)
        self.ready = True

    def predict(self, payload, headers=None):
        """Predict V1 and V2 requests."""
        result = self.model.predict(get_predict_input(payload))
        return get_predict_response(payload, result, self.name)


path, port = sys.argv[1:]
sys.argv = sys.argv[:1]
server = kserve.ModelServer(http_port=int(port), enable_grpc=False, enable_latency_logging=False)
server.start([Iris(path)])
