"""The OpenAPI 3.1 description of the server: openapi.json, with this version and the limits that it was given."""

import json
from pathlib import Path
from typing import Any

from wastejax import __version__

_DESCRIPTION = Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


def openapi(body: int, pixels: int, files: int) -> dict[str, Any]:
    """Returns the description, JSON-ready; the arguments are the limits, see `app.Limits`."""
    described = json.loads(_DESCRIPTION)
    described["info"]["version"] = __version__
    predict = described["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    form["properties"]["file"]["maxItems"] = files
    too_large = predict["responses"]["413"]
    too_large["description"] = too_large["description"].format(body=body, pixels=pixels)
    return described
