"""Compares what tells images of no class from the others on sources that a model never learned from.

Command: python experiments/unfamiliar.py --data=DIR --data2=DIR2 --state=STATE
STATE is that of `another_camera.py`: its features.npz and its bundle. Each score gets the threshold at which 5 % of the
images of no class are kept on the sources that judge; what counts is how many of the others are kept then, and how
many of these are right. Writes results/unfamiliar.json and .md.
"""

import argparse
from pathlib import Path

import numpy as np

from experiments.another_camera import HOME, JUDGES, LICENSED, catalog
from experiments.provenance import provenance
from wastejax.bundle import load_bundle
from wastejax.evaluation.ood import auroc, bin_probability, energy, max_probability
from wastejax.evaluation.report.markdown import percent, table
from wastejax.evaluation.trust import calibrate
from wastejax.files import write_json, write_text
from wastejax.training.heads import cluster, head_of, logits_of, with_familiarity

RESULTS = Path(__file__).parent / "results"
SLOPES, CLUSTERS = (0.0, 2.0, 4.0, 6.0, 8.0), (64, 256, 1024)


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
    bundle = load_bundle(args.state / "fitted")
    allowed = np.array([[name in item.allowed for name in bundle.classes] for item in items])
    sources, splits = (np.array([getattr(item, key) for item in items]) for key in ("source", "split"))
    shown = allowed.any(axis=1)
    learned = np.isin(sources, LICENSED) & (splits == "train") & shown
    judging = np.isin(sources, JUDGES)
    home_val = (sources == HOME) & (splits == "val")

    rows = []
    logits = head_of(bundle).logits(seen)
    right = allowed[np.arange(len(seen)), logits.argmax(axis=1)]

    def add(name: str, score: np.ndarray) -> None:
        outside = score[judging & ~shown]
        least = np.quantile(outside, 0.95)
        row = {"score": name, "auroc": auroc(score[judging & shown & right], outside)}
        for source, mine in (
            *((source, sources == source) for source in JUDGES[:2]),
            (HOME, (sources == HOME) & (splits == "test")),
        ):
            kept = mine & shown & (score >= least)
            row[source] = {"kept": kept.sum() / (mine & shown).sum(), "right": right[kept].mean()}
        rows.append(row)

    labels = np.where(allowed, logits, -np.inf).argmax(axis=1)
    temperature = calibrate(logits[home_val], labels[home_val]).temperature
    add("probability of the class", max_probability(logits, temperature))
    add("probability of the bin", bin_probability(logits, temperature, bundle.bins))
    add("energy", energy(logits, temperature))
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    cosines = unit @ unit[learned].T
    cosines[np.flatnonzero(learned), np.arange(learned.sum())] = -1  # an image is no neighbor of its own
    add("cosine to the fifth-nearest image learned from", np.sort(cosines, axis=1)[:, -5])
    for most in CLUSTERS:
        centers = cluster(seen[learned], most)
        add(f"cosine to the nearest of {most} centers", (unit @ centers.T).max(axis=1))
    for slope in SLOPES[1:]:
        found = logits_of(with_familiarity(bundle, seen[learned], slope), seen)
        own = calibrate(found[home_val], labels[home_val]).temperature
        add(f"bin, 256 centers, slope {slope:g}", bin_probability(found, own, bundle.bins))
    command = "python experiments/unfamiliar.py --data=data --data2=data2 --state=STATE"
    about = provenance(command) | {"images": len(items), "weights": bundle.path.name, "rows": rows}
    write_json(RESULTS / "unfamiliar.json", about)
    write_text(RESULTS / "unfamiliar.md", "\n".join(markdown(about)) + "\n")


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
        f"Each score at the threshold that keeps 5 % of the images of no class of {', '.join(JUDGES)}: how many of the "
        "others are kept, and how many of these are right. AUROC: images answered rightly against those of no class. "
        f"`{about['command']}` at {about['commit']}, {about['date']}, {about['hardware']}.",
        "",
        *table(("score", "AUROC", *names), cells),
    ]


if __name__ == "__main__":
    main()
