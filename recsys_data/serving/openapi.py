"""The OpenAPI description of the HTTP API, from the structs that it reads and writes."""

from typing import Any

import msgspec

from recsys_data.serving.answers import Answer, Request
from recsys_data.serving.items import MAX_IDS

REF = "#/components/schemas/{name}"
PATHS = {
    "/v1/recommend": "Items for a visitor.",
    "/v1/rank": "The given items in the best order; those that may not be shown are left out.",
    "/v1/similar": "Items similar to the given ones.",
}


def openapi(version: str) -> dict[str, Any]:
    """The description, as JSON has it; `version` is that of the package."""
    (request, answer), components = msgspec.json.schema_components([Request, Answer], ref_template=REF)
    refusal = {
        "description": "What was found, and what was expected.",
        "content": _json({"$ref": "#/components/schemas/Error"}),
    }
    responses = {
        "200": {"description": "The answer.", "content": _json(answer)},
        "400": refusal,
        "401": refusal,
        "413": refusal,
    }
    text = {"type": "string"}
    fields = dict.fromkeys(("error", "code", "message"), text)
    return {
        "openapi": "3.1.0",
        "info": {"title": "recsys_data serving", "version": version},
        "paths": {
            path: {
                "post": {
                    "summary": summary,
                    "requestBody": {"required": True, "content": _json(request)},
                    "responses": responses,
                    "security": [{}, {"key": []}],
                }
            }
            for path, summary in PATHS.items()
        }
        | {
            "/v1/items": {
                "get": {
                    "summary": "Titles, categories and prices of items, for pages that show them.",
                    "parameters": [
                        {
                            "name": "ids",
                            "in": "query",
                            "required": True,
                            "description": f"Ids, separated by commas; at most {MAX_IDS}.",
                            "schema": text,
                        }
                    ],
                    "responses": {"200": {"description": "JSON."}, "400": refusal, "401": refusal},
                    "security": [{}, {"key": []}],
                }
            },
            "/health": {"get": {"summary": "What is loaded.", "responses": {"200": {"description": "JSON."}}}},
            "/metrics": {"get": {"summary": "Counts for Prometheus.", "responses": {"200": {"description": "Text."}}}},
        },
        "components": {
            "schemas": components | {"Error": {"type": "object", "properties": fields, "required": list(fields)}},
            "securitySchemes": {"key": {"type": "http", "scheme": "basic"}},
        },
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
