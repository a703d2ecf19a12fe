"""GET /openapi.json: what requests may contain, from the schema that validates them."""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy import __version__
from proxy.api.context import DRY_RUN
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
            "/v1/images/generations": {"post": _making("Make pictures", _body("ImageRequest"))},
            "/v1/images/edits": {"post": _making("Edit pictures", _form("ImageEdit"))},
            "/v1/images/variations": {"post": _making("Vary a picture", _form("ImageEdit"))},
            "/v1/images/generations/{id}": {"get": _job("State or answer of a job"), "delete": _job("Abandon a job")},
            "/v1/models": {"get": _operation("List models")},
            "/v1/chat/completions": {"post": _operation("Answer a chat with a picture")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ImageRequest": schema,
                "ImageEdit": edit,
                "ImagesResponse": _ANSWER,
                "DryRun": _DRY_RUN,
                "Error": _ERROR,
            },
        },
    }


def _operation(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answers = {"200": _content("ImagesResponse", "Done"), "default": _content("Error", "Failed")}
    operation: dict[str, Any] = {"summary": summary, "responses": answers}
    return {**operation, "requestBody": body} if body else operation


def _making(summary: str, body: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(summary, body)
    references = [_reference(name)["schema"] for name in ("ImagesResponse", "DryRun")]
    operation["responses"]["200"]["content"]["application/json"]["schema"] = {"oneOf": references}
    description = "true: answer with a DryRun, which says what the call would do, and do nothing"
    header = {"name": DRY_RUN, "in": "header", "required": False, "schema": _STRING, "description": description}
    return {**operation, "parameters": [header]}


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
_STRINGS = {"type": "array", "items": _STRING}
_DRY_RUN_ROUTE: dict[str, Any] = {
    "provider": _STRING,
    "model": _STRING,
    "size": _STRING,
    "mapped": _STRINGS,
    "dropped": _STRINGS,
    "price": {"type": ["string", "null"], "description": "Dollars for one picture; null: unknown."},
    "price_source": {"enum": ["config", "table", "unknown"]},
    "seconds": {"type": ["number", "null"], "description": "The usual time for one picture; null: unknown."},
}
_DRY_RUN_FIELDS: dict[str, Any] = {
    "object": {"const": "image.dry_run"},
    "model": _STRING,
    "operation": {"enum": ["generate", "edit", "inpaint"]},
    "n": {"type": "integer"},
    "response_format": {"enum": ["url", "b64_json"]},
    "reattached": {"type": "boolean", "description": "The call would join an earlier one and buy nothing."},
    "cost": {"type": ["string", "null"], "description": "Dollars for all pictures by the first route; null: unknown."},
    "ignored": {**_STRINGS, "description": "Parameters that nobody here knows."},
    "routes": {
        "type": "array",
        "description": "In the order in which they would be tried.",
        "items": {"type": "object", "properties": _DRY_RUN_ROUTE, "required": list(_DRY_RUN_ROUTE)},
    },
}
_DRY_RUN = {"type": "object", "properties": _DRY_RUN_FIELDS, "required": list(_DRY_RUN_FIELDS)}
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
