"""docs/results/page.md from what experiments/page.py measured."""

from typing import Any

from wastejax.data.taxonomy import LANGUAGES
from wastejax.evaluation.report.markdown import percent, table

SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
OTHERS = {
    "unsure_phone": "Not sure, and why",
    "dark_phone": "Dark mode",
    "live_phone": "The live view, of Chromium's test pattern",
    "several_desktop": "Several images",
    "boxes_desktop": "Several objects in one image",
}


def numbers(result: dict[str, Any]) -> list[str]:
    """What was measured, as a list."""
    size, same, regions = result["bytes"], result["agreement"], result["regions"]
    first = result["speed"]["first_answer_s"]
    return [
        f"- **Agreement** with `predict` on {same['pictures']} images of {same['data']}: "
        f"{percent(same['agreement'])}; probabilities differ by {same['largest_difference']:.0e} at most. "
        f"{same['ms_p50']:.0f} ms an image, from the file to the answer.",
        f"- **Several objects** in {regions['mosaics']} mosaics of four images: `predict --regions` finds "
        f"{regions['predict']}, the page {regions['page']}, {regions['same']} of them the same class in the same "
        f"box; browsers resize differently. {regions['seconds']:.0f} s an image.",
        f"- **Loaded** before the first answer: {size['bytes'] / 1e6:.1f} MB, "
        f"{percent(size['bytes'] / size['before'])} of the {size['before'] / 1e6:.1f} MB of the page before "
        "(01b5c07), whether or not the host compresses.",
        "- **First answer** after the page is opened, with an image waiting and everything cached, from "
        "an earlier visit in which it had answered an image: "
        f"median {first['median']:.1f} s, at most {first['max']:.1f} s in {first['loads']} loads.",
        f"- **Live view**: {result['speed']['live']}. Both were timed"
        + (
            f" at a load of {result['speed']['load']:.0f}, on two cores."
            if "load" in result["speed"]
            else "."
        ),
        f"- Measured on {same['hardware']}, {same['browser']}, one thread.",
    ]


def lighthouse(found: dict[str, Any]) -> list[str]:
    """Its scores, in each language."""
    rows = [
        (name, str(row["accessibility"]), str(row["best-practices"]))
        for name, row in found.items()
        if isinstance(row, dict)
    ]
    if not rows:
        return []
    head = ("language, form", "accessibility", "best practices")
    return [f"{found['version']}, in each language:", "", *table(head, rows), ""]


def text(result: dict[str, Any]) -> str:
    """docs/results/page.md."""
    lines = [
        "# The web page",
        "",
        "The page that `wastejax web` writes, with the bundled model inside, in headless Chromium. Written by",
        "`experiments/page.py`, whose docstring has the command; each number's commit, date and hardware are in",
        "`experiments/results/page.json`.",
        "",
        *numbers(result),
        "",
        *lighthouse(result.get("lighthouse", {})),
        "## Screenshots",
        "",
        "Of drawn images, each language with the rules of a country that speaks it.",
        "",
    ]
    for form in SIZES:
        lines += [
            f"![{language}, {form}](../images/page/{language}_{form}.webp)" for language in LANGUAGES
        ] + [""]
    lines += [f"![{about}](../images/page/{name}.webp)" for name, about in OTHERS.items()]
    return "\n".join(lines) + "\n"
