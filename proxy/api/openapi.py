"""GET /openapi.json: what requests may contain, from the schema that validates them."""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy import __version__
from proxy.requests.image_request import ALIASES, ImageRequest


async def openapi(request: Request) -> Response:  # noqa: ARG001 (Starlette's signature)
    """Return the description."""
    return JSONResponse(document())


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    schema = ImageRequest.model_json_schema()
    schema["description"] = (
        "OpenAI's image parameters and the providers' own. Unknown fields are ignored and reported in "
        f"x-images-dropped. Aliases: {', '.join(f'{alias} = {name}' for alias, name in ALIASES.items())}."
    )
    edit = {
        "type": "object",
        "required": ["image", "prompt"],
        "properties": {
            **schema["properties"],
            "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": 16},
            "mask": {"type": "string", "format": "binary"},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "images-proxy", "version": __version__, "license": {"name": "MIT"}},
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/images/generations": {"post": _operation("Make pictures", _body("ImageRequest"))},
            "/v1/images/edits": {"post": _operation("Edit pictures", _form("ImageEdit"))},
            "/v1/images/variations": {"post": _operation("Vary a picture", _form("ImageEdit"))},
            "/v1/images/generations/{id}": {"get": _job("State or answer of a job"), "delete": _job("Abandon a job")},
            "/v1/models": {"get": _operation("List models")},
            "/v1/chat/completions": {"post": _operation("Answer a chat with a picture")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"ImageRequest": schema, "ImageEdit": edit, "ImagesResponse": _ANSWER, "Error": _ERROR},
        },
    }


def _operation(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answers = {"200": _content("ImagesResponse", "Done"), "default": _content("Error", "Failed")}
    operation: dict[str, Any] = {"summary": summary, "responses": answers}
    return {**operation, "requestBody": body} if body else operation


def _job(summary: str) -> dict[str, Any]:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {**_operation(summary), "parameters": [parameter]}


def _reference(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _content(name: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _reference(name)}}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": _reference(name)}}


def _form(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"multipart/form-data": _reference(name)}}


_STRING = {"type": "string"}
_ANSWER = {
    "type": "object",
    "required": ["created", "data"],
    "properties": {
        "created": {"type": "integer"},
        "data": {"type": "array", "items": {"type": "object", "properties": {"url": _STRING, "b64_json": _STRING}}},
        **dict.fromkeys(("background", "output_format", "quality", "size"), _STRING),
        "usage": {"type": "object"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}
