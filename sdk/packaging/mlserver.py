"""What tells MLServer how to load a packaged model: MLServer's own runtime for scikit-learn does.

MLServer reads requests by it: columns become a table, and texts stay texts, over gRPC too, where they are bytes. Where
there is no such file (KServe and Seldon can tell it in their own ways), each request has to say so.

Source: PyPI's mlserver 1.7.1 (mlserver.settings, mlserver.codecs).
"""

from __future__ import annotations

import json
from typing import Any, Final

from longshore.packaging.card import ModelCard
from longshore.packaging.datatypes import column_type, label_type

__all__ = ["SETTINGS_FILE", "mlserver_settings"]

SETTINGS_FILE: Final = "model-settings.json"


def mlserver_settings(card: ModelCard, file: str) -> str:
    """The settings as JSON text. They have no name: that is the folder's, or what the platform says.

    Args:
        card: The model's card.
        file: The model's file, beside the settings.
    """
    signature = card.signature
    inputs = [_tensor(column.name, column_type(column), [-1, 1]) for column in signature.inputs]
    outputs = [_tensor("predict", label_type(signature), [-1])]
    if signature.classes is not None:
        outputs.append(_tensor("predict_proba", "FP64", [-1, len(signature.classes)]))
    settings = {
        "implementation": "mlserver_sklearn.SKLearnModel",
        "platform": card.format,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"uri": f"./{file}", "content_type": "pd"},
    }
    return json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return {**tensor, "parameters": {"content_type": "str"}} if datatype == "BYTES" else tensor
