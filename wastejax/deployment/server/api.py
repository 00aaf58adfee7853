"""The OpenAPI 3.1 description of the server."""

from typing import Any

from wastejax import __version__

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_GUESS = {
    "type": "object",
    "required": ["class", "bin", "probability"],
    "properties": {
        "class": {"type": "string", "description": "a name in /labels"},
        "bin": {"type": "string", "description": "a key of bins in /labels; empty where no rule is known"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "description": "the name that came with the image"},
        "rejected": {"type": "boolean", "description": "the model is too uncertain: better ask a person"},
        "bin_probability": {"type": "number", "description": "of the first's bin: the sum over its classes"},
        "class_sure": {"type": "boolean", "description": "the first itself is sure, not only its bin"},
        "top": {"type": "array", "items": _GUESS, "description": "likeliest first"},
        "classes": {
            "type": "array",
            "items": _GUESS,
            "description": "all that the image shows, by a multi-label model alone",
        },
        "bins": {
            "type": "array",
            "items": {"type": "string"},
            "description": "the bins of these classes together, by a multi-label model alone",
        },
        "heatmap": {
            "type": "string",
            "description": "a data URL: the image with a heat map of its class",
        },
        "error": {"type": "string", "description": "why this one of several images cannot be read"},
    },
}


def openapi(body: int, pixels: int, files: int) -> dict[str, Any]:
    """Returns the description, JSON-ready; the arguments are the limits, see `app.Limits`."""
    refusals = {
        "400": "no image, or a damaged one, or a damaged form",
        "408": "the request took too long to arrive",
        "413": f"more than {body} bytes, or an image of more than {pixels} pixels",
        "415": "not an image; where it is JSON, base64, a data URL, form text or an address, what to send instead",
        "503": "too many images are waiting; Retry-After says when to try again",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wastejax",
            "version": __version__,
            "description": "Classifies images of waste.",
        },
        "paths": {
            "/predict": {"post": _predict(files, refusals)},
            "/labels": {
                "get": _get(
                    "Classes, bins and advice in every language, the preprocessing, and whether images are kept",
                    "of this model",
                )
            },
            "/healthz": {"get": _get("Whether the server answers", "it does")},
            "/metrics": {
                "get": {
                    "summary": "Counters for Prometheus",
                    "responses": {
                        "200": {
                            "description": "text format 0.0.4",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                }
            },
        },
    }


def _predict(files: int, refusals: dict[str, str]) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"file": {"type": "array", "items": binary, "minItems": 1, "maxItems": files}},
    }
    answers = {
        "type": "object",
        "required": ["answers"],
        "properties": {"answers": {"type": "array", "items": _ANSWER}},
    }
    return {
        "summary": "Classify images",
        "description": "Errors of single images are in their answers as long as one can be read.",
        "parameters": [
            {
                "name": "top",
                "in": "query",
                "description": "classes per image",
                "schema": {"type": "integer", "minimum": 1, "default": 3},
            },
            {
                "name": "heatmap",
                "in": "query",
                "description": "1: also a heat map; not with an exported model, see /labels",
                "schema": {"type": "integer", "enum": [0, 1], "default": 0},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": binary},
                "image/*": {"schema": binary},
            },
        },
        "responses": {
            "200": _json("one answer per image, in order", answers),
            **{status: _json(text, _ERROR) for status, text in refusals.items()},
        },
    }


def _get(summary: str, description: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _json(description, {"type": "object"})}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
