"""What every committed number comes with: command, commit, date and hardware; no path of the measuring machine."""

import datetime
import re
import subprocess
from pathlib import Path

from wastejax import machine

ROOT = Path(__file__).resolve().parents[1]


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
    """Returns a command whose absolute paths are named by their last part."""
    return re.sub(r"(?<![^\s=])/(?:[^\s/]*/)*(?=[^\s/])", "", command)
