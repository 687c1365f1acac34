"""Calls of Seldon's own client, for its environment: a list of them in, what came of each out, as JSON."""

import json
import sys

import numpy as np
from google.protobuf import json_format
from seldon_core.proto import prediction_pb2
from seldon_core.seldon_client import SeldonClient


def message(content):
    return json_format.ParseDict(content, prediction_pb2.SeldonMessage())


def call(transport, address, do, data=None, dtype=None, **options):
    client = SeldonClient(
        gateway="seldon",
        transport=transport,
        gateway_endpoint=address,
        microservice_endpoint=address,
        client_return_type="dict",
    )
    if "raw_data" in options and transport == "grpc":
        options["raw_data"] = message(options["raw_data"])
    if data is not None:
        options["data"] = np.array(data, dtype=dtype or object)
    if do == "feedback":
        for name in ("request", "response", "truth"):
            options[f"prediction_{name}"] = message(options.pop(name, {}))
    if do == "microservice_feedback":
        for name in ("request", "response"):
            options[f"prediction_{name}"] = message(options.pop(name, {}))
    done = getattr(client, do)(**options)
    return {"success": done.success, "message": done.msg, "response": plain(done.response)}


def plain(response):
    known = response is None or isinstance(response, dict)
    return response if known else json_format.MessageToDict(response)


json.dump([call(**one) for one in json.loads(sys.argv[1])], sys.stdout)
