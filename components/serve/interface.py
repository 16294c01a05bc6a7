"""The service's interface as OpenAPI describes it, beside what FastAPI finds out by itself."""

from typing import Any

from components.serve.body import IMAGES

MOST_ALTERNATIVES = 20
PICTURE = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"images": {"type": "array", "items": PICTURE, "minItems": 1}}}
PACKED = {"type": "object", "required": ["images"], "properties": {
    "images": {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1, "maxItems": IMAGES}
}}  # fmt: skip
NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
READING = {"type": "object", "required": ["name", "text", "confidence"], "properties": {
    "name": {"type": "string"}, "text": {"type": "string"}, "confidence": NUMBER,
    "characters": {"type": "array", "items": {"type": "object"}},
    "alternatives": {"type": "array", "items": {"type": "object", "required": ["text", "probability"], "properties": {
        "text": {"type": "string"}, "probability": NUMBER}}},
}}  # fmt: skip
READINGS = {"type": "object", "required": ["readings"], "properties": {"readings": {"type": "array", "items": READING}}}
TOLD = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
REFUSALS = {
    400: "no HTTP, or a body that cannot be taken in", 408: "the request is not whole in time",
    413: "the body, a picture or their number is too large", 415: "no content type of pictures, or a packed body",
    422: "something that is no picture, or a query that nobody can be asked for",
    431: "the head is too large", 500: "the network failed", 503: "too much is in hand: try again",
}  # fmt: skip


def _query(name: str, most: int, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0, "maximum": most, "default": 0}
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


READ: dict[str, Any] = {
    "parameters": [
        _query("characters", 1, "1: each character's confidence and place"),
        _query("alternatives", MOST_ALTERNATIVES, "so many of the likeliest texts"),
    ],
    "requestBody": {"required": True, "content": {
        "image/*": {"schema": PICTURE}, "multipart/form-data": {"schema": FORM}, "application/json": {"schema": PACKED},
    }},
}  # fmt: skip
READ_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _json("what is read of each picture, in their order", READINGS),
    **{status: _json(description, TOLD) for status, description in REFUSALS.items()},
}
STATUS = {"type": "object", "required": ["status"], "properties": {
    "status": {"type": "string", "enum": ["ready", "saturated", "stopped"]}
}}  # fmt: skip
HEALTH_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _json("ready, or saturated: new requests are refused now", STATUS),
    503: _json("stopped: nothing is read any more", STATUS),
}
TEXT = {"description": "counters in Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
METRICS_ANSWERS: dict[int | str, dict[str, Any]] = {200: TEXT}
