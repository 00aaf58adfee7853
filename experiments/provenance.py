"""What every committed number comes with: command, commit, date and hardware; no path of the measuring machine."""

import datetime
import re
import subprocess
from pathlib import Path
from typing import Any

from wastejax import machine

ROOT = Path(__file__).resolve().parents[1]
# A whole argument or value: perhaps --key=, perhaps a kind such as shards:, then an absolute path, and no //host.
_PATH = re.compile(r"^([('\"]?(?:[^/=]*=)*(?:[a-z]+:)?)/(?!/)(?:.*/)?(?=[^/'])")


def provenance(command: str, commit: str = "") -> dict[str, str]:
    """Returns what a result begins with.

    Args:
        command: that measured it.
        commit: what was measured; '' for what is checked out.
    """
    return {
        "command": named(command),
        "commit": (commit or head())[:12],
        "date": datetime.date.today().isoformat(),
        "hardware": machine.hardware(),
    }


def head(checkout: Path = ROOT) -> str:
    """Returns the commit that is checked out."""
    return subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=checkout).strip()


def named(command: str) -> str:
    """Returns a command, or other text, whose absolute paths are named by their last part."""
    # What holds spaces is in quotes, as `shlex.join` writes it.
    return re.sub(r"'[^']*'|\S+", lambda argument: _PATH.sub(r"\1", argument[0]), command)


def without_paths(value: Any) -> Any:
    """Returns values of JSON in which each text that is an absolute path is its last part."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    return _PATH.sub(r"\1", value) if isinstance(value, str) else value
