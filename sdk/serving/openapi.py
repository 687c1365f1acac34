"""What the OpenAPI document says of the operations: the model's own columns, with an example that works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from longshore.packaging import Column, Signature
from longshore.packaging.datatypes import column_type
from longshore.serving.core import Predictor
from longshore.serving.models import Models
from longshore.serving.protocol import model_v2
from longshore.serving.routes import ROUTES, Route

__all__ = ["describe"]

_JSON_TYPES: Final = {"number": "number", "integer": "integer", "boolean": "boolean"}
_SHOWN_CATEGORIES: Final = 20
_ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "What is wrong and what to do."}},
    "required": ["error"],
}

Operation = dict[str, Any]


def describe(document: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """A document with what is served.

    Args:
        document: It has the application's routes, and nothing of the model.
        models: The versions that are served; the default one's columns are shown.
    """
    paths = {path: dict(operations) for path, operations in document["paths"].items()}
    for route in ROUTES:
        if "{version}" in route.template and not models.versions:
            del paths[route.template]
        else:
            operations = paths[route.template]
            operations[route.method.lower()] = {**operations[route.method.lower()], **_operation(route, models)}
    return {**document, "paths": paths}


def _operation(route: Route, models: Models) -> Operation:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": values}}
        for name, values in (("model", [models.name]), ("version", models.versions))
        if f"{{{name}}}" in route.template
    ]
    if not parameters:
        return {}
    about = {"v1": _predict_operation, "v2": _infer_operation}
    more = about[route.reads](models.default) if route.reads is not None else {"responses": {}}
    missing = _errors({"404": "There is no such model here."})
    return {**more, "parameters": parameters, "responses": {**more["responses"], **missing}}


def _predict_operation(predictor: Predictor) -> Operation:
    """The V1 predict call."""
    signature = predictor.card.signature
    row = {
        "type": "object",
        "properties": {column.name: _column_schema(column) for column in signature.inputs},
        "required": list(signature.names),
    }
    properties: dict[str, Any] = {"instances": {"type": "array", "items": row, "minItems": 1}}
    answer: dict[str, Any] = {"predictions": {"type": "array", "items": _label_schema(signature)}}
    if predictor.gives_probabilities:
        properties["parameters"] = {
            "type": "object",
            "properties": {"probabilities": {"type": "boolean", "default": False}},
        }
        answer["probabilities"] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
        answer["classes"] = {"type": "array", "items": _label_schema(signature)}
    request = {"type": "object", "properties": properties, "required": ["instances"]}
    example = {"instances": [dict(row) for row in predictor.card.example]}
    return _body_operation(request, example, {"type": "object", "properties": answer})


def _infer_operation(predictor: Predictor) -> Operation:
    """The V2 inference call."""
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": list(predictor.card.signature.names)},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    names = [output["name"] for output in model_v2(predictor)["outputs"]]
    output = {"type": "object", "properties": {"name": {"type": "string", "enum": names}}, "required": ["name"]}
    request = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": output},
        },
        "required": ["inputs"],
    }
    rows = predictor.card.example
    example = {
        "inputs": [
            {
                "name": column.name,
                "shape": [len(rows), 1],
                "datatype": column_type(column),
                "data": [row[column.name] for row in rows],
            }
            for column in predictor.card.signature.inputs
        ]
    }
    return _body_operation(request, example, {"type": "object"})


def _body_operation(request: Mapping[str, Any], example: Mapping[str, Any], answer: Mapping[str, Any]) -> Operation:
    content = {"application/json": {"schema": request, "example": example}}
    errors = _errors({"400": "The request does not fit.", "413": "The body is too large.", "500": "The model failed."})
    success = {"description": "The predictions.", "content": {"application/json": {"schema": answer}}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": success, **errors},
    }


def _errors(descriptions: Mapping[str, str]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": text, "content": content} for status, text in descriptions.items()}


def _column_schema(column: Column) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [_JSON_TYPES.get(column.kind, "string"), "null"]}
    if column.kind == "date":
        schema["description"] = "A date as ISO 8601, such as 2024-05-17 or 2024-05-17T08:30:00Z."
    if column.kind == "image":
        height, width, _ = column.shape or (0, 0, 0)
        schema["type"] = "string"
        schema["description"] = f"A picture's file (PNG, JPEG) in base64; it is scaled to {width} x {height} pixels."
    if column.categories:
        shown = ", ".join(column.categories[:_SHOWN_CATEGORIES])
        more = len(column.categories) - _SHOWN_CATEGORIES
        schema["description"] = f"Seen in training: {shown}{f', and {more} more' if more > 0 else ''}."
    return schema


def _label_schema(signature: Signature) -> dict[str, Any]:
    return {"type": "number"} if signature.classes is None else {"enum": list(signature.classes)}
