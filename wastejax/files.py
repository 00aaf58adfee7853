"""Files written in one move: a reader, or a kill, sees the old one or the new one, never half."""

import json
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file's content."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replaces a file's content by indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False))
