"""Compares what tells images of no class from the others on sources that a model never learned from.

Command: python experiments/unfamiliar.py --data=DIR --data2=DIR2 --state=STATE
STATE is that of `another_camera.py`: its features.npz and its bundle. Each score gets the threshold at which 5 % of
the images of no class are kept on the sources that judge; what counts is how many of the others are kept then, and
how many of these are right. Writes results/unfamiliar.json and .md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.another_camera import HOME, JUDGES, LICENSED, Item, catalog
from experiments.provenance import provenance
from wastejax.bundle import Bundle, load_bundle
from wastejax.evaluation.ood import auroc, bin_probability, energy, max_probability
from wastejax.evaluation.report.markdown import percent, table
from wastejax.evaluation.trust import calibrate
from wastejax.files import write_json, write_text
from wastejax.training.heads import cluster, head_of, logits_of, with_familiarity

RESULTS = Path(__file__).parent / "results"
SLOPES, CLUSTERS = (2.0, 4.0, 6.0, 8.0), (64, 256, 1024)


def main() -> None:
    """Scores all, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "data2", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    with np.load(args.state / "features.npz") as stored:
        known = dict(zip(stored["names"].tolist(), stored["features"], strict=True))
    items = [item for item in catalog(args.data, args.data2) if str(item.path) in known]
    seen = np.stack([known[str(item.path)] for item in items])
    command = "python experiments/unfamiliar.py --data=data --data2=data2 --state=STATE"
    rows = compare(load_bundle(args.state / "fitted"), items, seen)
    about = provenance(command) | {"images": len(items), "rows": rows}
    write_json(RESULTS / "unfamiliar.json", about)
    write_text(RESULTS / "unfamiliar.md", "\n".join(markdown(about)) + "\n")


def compare(bundle: Bundle, items: list[Item], seen: np.ndarray) -> list[dict[str, Any]]:
    """Returns a row for each score: its name, AUROC, and of each source the shares kept and right of these."""
    allowed = np.array([[name in item.allowed for name in bundle.classes] for item in items])
    sources, splits = (np.array([getattr(item, key) for item in items]) for key in ("source", "split"))
    shown = allowed.any(axis=1)
    learned = np.isin(sources, LICENSED) & (splits == "train") & shown
    home_val = (sources == HOME) & (splits == "val")
    logits = head_of(bundle).logits(seen)
    labels = np.where(allowed, logits, -np.inf).argmax(axis=1)
    right = allowed[np.arange(len(seen)), logits.argmax(axis=1)]
    judged = {name: shown & (sources == name) for name in JUDGES[:2]}
    judged[HOME] = (sources == HOME) & (splits == "test")
    strange = np.isin(sources, JUDGES) & ~shown

    def row(name: str, score: np.ndarray) -> dict[str, Any]:
        least = np.quantile(score[strange], 0.95)
        found: dict[str, Any] = {"score": name}
        found["auroc"] = auroc(score[np.isin(sources, JUDGES) & shown & right], score[strange])
        for source, mine in judged.items():
            kept = score[mine] >= least
            found[source] = {"kept": kept.mean(), "right": right[mine][kept].mean()}
        return found

    temperature = calibrate(logits[home_val], labels[home_val]).temperature
    rows = [
        row("probability of the class", max_probability(logits, temperature)),
        row("probability of the bin", bin_probability(logits, temperature, bundle.bins_or_own)),
        row("energy", energy(logits, temperature)),
    ]
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    cosines = unit @ unit[learned].T
    cosines[np.flatnonzero(learned), np.arange(learned.sum())] = -1  # an image is no neighbor of its own
    rows.append(row("cosine to the fifth-nearest image learned from", np.sort(cosines, axis=1)[:, -5]))
    for most in CLUSTERS:
        nearest = (unit @ cluster(seen[learned], most).T).max(axis=1)
        rows.append(row(f"cosine to the nearest of {most} centers", nearest))
    for slope in SLOPES:
        found = logits_of(with_familiarity(bundle, seen[learned], slope), seen)
        own = calibrate(found[home_val], labels[home_val]).temperature
        rows.append(
            row(f"bin, 256 centers, slope {slope:g}", bin_probability(found, own, bundle.bins_or_own))
        )
    return rows


def markdown(about: dict) -> list[str]:
    """Returns the lines of the page."""
    names = (*JUDGES[:2], HOME)
    cells = [
        (
            row["score"],
            f"{row['auroc']:.3f}",
            *(f"{percent(row[name]['kept'])}, {percent(row[name]['right'])} right" for name in names),
        )
        for row in about["rows"]
    ]
    return [
        "# What tells images of no class from the others",
        "",
        f"Each score at the threshold that keeps 5 % of the images of no class of {', '.join(JUDGES)}: how many of "
        "the others are kept, and how many of these are right. AUROC: images answered rightly against those of no "
        "class. The last rows multiply the logits of an image by `exp(slope * (cosine - median))`; 4 is what the "
        "bundled model has. "
        f"`{about['command']}` at {about['commit']}, {about['date']}, {about['hardware']}.",
        "",
        *table(("score", "AUROC", *names), cells),
    ]


if __name__ == "__main__":
    main()
