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
            "/v1/key": {"get": _reading("One's own key: its limits, and what is used of them")},
            "/v1/usage": {"get": _reading("What was used", "by", "split", "since", "key")},
            "/v1/ledger": {"get": _reading("Ledger entries", "limit", "before", "jobs", "unknown", "key")},
            "/v1/chat/completions": {"post": _operation("Answer a chat with a picture")},
            **_responses(),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ImageRequest": schema,
                "ImageEdit": edit,
                "ImagesResponse": _ANSWER,
                "Response": _RESPONSE,
                "DryRun": _DRY_RUN,
                "Error": _ERROR,
            },
        },
    }


def _responses() -> dict[str, Any]:
    one, cancelled = _responding("A response of the last hour"), _responding("Cancel a background response")
    return {
        "/v1/responses": {"post": _responding("Make or edit a picture with the image_generation tool", _RESPONSE_BODY)},
        "/v1/responses/{id}": {"get": {**one, "parameters": _ID}, "delete": _job("Forget a response, and its picture")},
        "/v1/responses/{id}/cancel": {"post": {**cancelled, "parameters": _ID}},
    }


def _operation(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answers = {"200": _content("ImagesResponse", "Done"), "default": _content("Error", "Failed")}
    operation: dict[str, Any] = {"summary": summary, "responses": answers}
    return {**operation, "requestBody": body} if body else operation


def _reading(summary: str, *queries: str) -> dict[str, Any]:
    answers = {"200": {"description": "Done"}, "default": _content("Error", "Failed")}
    parameters = [{"name": name, "in": "query", "required": False, "schema": _STRING} for name in queries]
    return {"summary": summary, "parameters": parameters, "responses": answers}


def _making(summary: str, body: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(summary, body)
    references = [_reference(name)["schema"] for name in ("ImagesResponse", "DryRun")]
    operation["responses"]["200"]["content"]["application/json"]["schema"] = {"oneOf": references}
    description = "true: answer with a DryRun, which says what the call would do, and do nothing"
    header = {"name": DRY_RUN, "in": "header", "required": False, "schema": _STRING, "description": description}
    return {**operation, "parameters": [header]}


def _job(summary: str) -> dict[str, Any]:
    return {**_operation(summary), "parameters": _ID}


def _responding(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answers = {"200": _content("Response", "Done, or how it is doing"), "default": _content("Error", "Failed")}
    operation: dict[str, Any] = {"summary": summary, "responses": answers}
    return {**operation, "requestBody": body} if body else operation


def _reference(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _content(name: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _reference(name)}}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": _reference(name)}}


def _form(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"multipart/form-data": _reference(name)}}


_STRING, _BOOLEAN = {"type": "string"}, {"type": "boolean"}
_ID = [{"name": "id", "in": "path", "required": True, "schema": _STRING}]
_RESPONSE_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["input"],
                "description": "As https://platform.openai.com/docs/api-reference/responses/create has it.",
                "properties": {
                    "input": {"anyOf": [_STRING, {"type": "array", "items": {"type": "object"}}]},
                    "model": _STRING,
                    "tools": {"type": "array", "items": {"type": "object"}},
                    "tool_choice": {"anyOf": [_STRING, {"type": "object"}]},
                    "previous_response_id": _STRING,
                    "metadata": {"type": "object", "additionalProperties": _STRING},
                    **dict.fromkeys(("stream", "background", "store"), _BOOLEAN),
                },
            }
        }
    },
}
_RESPONSE = {
    "type": "object",
    "required": ["id", "object", "created_at", "status", "model", "output"],
    "properties": {
        "id": _STRING,
        "object": {"const": "response"},
        "created_at": {"type": "integer"},
        "status": {"enum": ["queued", "in_progress", "completed", "failed", "cancelled"]},
        "model": _STRING,
        "output": {"type": "array", "items": {"type": "object", "required": ["id", "type", "status"]}},
        "error": {"type": ["object", "null"]},
        "usage": {"type": ["object", "null"]},
    },
}
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
