"""Writes docs/reference/cli.md from the commands' own parsers.

Command: python docs/cli.py [--check]. With --check nothing is written, and the exit code is 1 where it is stale.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wastejax import main as wastejax  # noqa: E402 - this checkout's, not an installed one

PAGE = ROOT / "docs" / "reference" / "cli.md"
HEAD = """\
# Command line

<!-- Made by `python docs/cli.py` from the commands' parsers; do not edit. -->

`wastejax COMMAND [OPTION …]`, which is the same as `python -m wastejax.main COMMAND [OPTION …]`. Without a command,
`--config=…` trains.

Exit codes: 0 for success, 1 where `predict` could not read some images, 2 after a mistake in the input (one line on
standard error says what, where and what to do), 130 when interrupted. `predict camera:0` takes
the first Ctrl-C as the end of its frames.
"""


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of a parser's commands by name."""
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def cell(text: str) -> str:
    """Returns text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """Returns one command as Markdown."""
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        value = "" if action.nargs == 0 else action.metavar or "|".join(map(str, action.choices or ()))
        if action.option_strings:
            flag = action.option_strings[0]
            title = f"{flag}={value}" if value else flag
        else:
            title = str(action.metavar or action.dest)
        text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        if action.choices and action.metavar is None and not action.option_strings:
            text += f" ({', '.join(map(str, action.choices))})"
        if action.required and action.option_strings:
            text += " (required)"
        title = title.replace("|", "\\|")
        rows.append(f"| `{title}` | {cell(text)} |")
    table = ["| option | |", "| --- | --- |", *rows, ""] if rows else []
    if parser.epilog:
        table += ["```text", parser.epilog.strip(), "```", ""]
    title = " ".join((parser.description or "").split())
    return "\n".join([f"## {name}", "", f"{title[:1].upper()}{title[1:]}.".replace("..", "."), "", *table])


def page() -> str:
    """Returns the whole page."""
    names = subcommands(wastejax.parser())
    sections = [section(name, subcommands(wastejax.parser(name))[name]) for name in names]
    return "\n".join([HEAD, *sections]).rstrip() + "\n"


def main() -> None:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the page is stale"
    )
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.relative_to(ROOT)}: not what the commands say; run python docs/cli.py")


if __name__ == "__main__":
    main()
