"""The web page: the files that `serve` answers with."""

from pathlib import Path

PAGE = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


def page_files() -> list[tuple[str, bytes, str]]:
    """Returns (URL path, content, media type) of each file of the page; '/' is the page itself."""
    files = [path for path in sorted(PAGE.iterdir()) if path.suffix in KINDS]
    return [
        ("/" if path.name == "index.html" else f"/{path.name}", path.read_bytes(), KINDS[path.suffix])
        for path in files
    ]
