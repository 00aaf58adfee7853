"""Leaves each source out in turn of the fine-tuning of the network, and of the classifier's fit.

Command: python experiments/left_out_network.py --run=RUN --data=DIR --data2=DIR2 --state=STATE [--all-sources]
RUN is a bundle that was fine-tuned on household_waste alone, such as what `final_fit.py` makes; DIR and DIR2 are as
in another_camera.py. For each source that shows classes, RUN goes the way of the bundled model without it:
towards the published weights, fine-tuned on all others, blended, its classifier fitted to all others. It is then
scored on the source, and on household_waste's test images. With --all-sources the others include those without a
stated license, from which no weights may be shipped. What STATE holds is not computed again; a row is added to
results/left_out.json, which grows with each source.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.another_camera import (
    JUDGES,
    LICENSED,
    Item,
    blended,
    catalog,
    features,
    taken,
    uncalibrated,
)
from experiments.camera_tables import LEFT_OUT
from experiments.left_out import RESULTS, SHIPPED, Seen, score_home, score_source
from experiments.mixed_fit import SHARES, blend, describe, fine_tune
from experiments.provenance import provenance
from wastejax.bundle import load_bundle, save_bundle
from wastejax.files import write_json
from wastejax.training.heads import head_of

UNLICENSED = {"garbage_v2": 1100, "cardstdani": 400}  # shares of the batches
SEED = 17  # of the recipe


def main() -> None:
    """Fine-tunes and scores what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "data", "data2", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--all-sources", action="store_true", help="learn from those without a license, too")
    parser.add_argument(
        "--seed", default=str(SEED), help="of the fine-tuning; 17+18+19: the mean of these networks' weights"
    )
    parser.add_argument("--leave-out", default=",".join(LEFT_OUT), help="only these, separated by commas")
    args = parser.parse_args()
    start = args.state / "start"
    if not start.exists():
        blended(load_bundle(args.run), start)
    items = catalog(args.data, args.data2)
    kept = args.state / f"{'all' if args.all_sources else 'licensed'}-{args.seed}.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    for source in args.leave_out.split(","):
        if source not in found:
            found[source] = without(source, items, args.state, args.all_sources, args.seed)
            write_json(kept, found)
            print(source, found[source], flush=True)
            add_row(found, args.all_sources, args.seed)


def without(source: str, items: list[Item], state: Path, all_sources: bool, seed: str) -> dict[str, Any]:
    """Returns how the network is right that learned from all sources but one, or all with a stated license."""
    learned = (*LICENSED, *JUDGES) if all_sources else LICENSED
    shares = {name: share for name, share in (SHARES | UNLICENSED).items() if name in (*learned, "nothing")}
    # Where nothing is learned from the source anyway, the network is that of all which is learned from.
    name = source if source in shares else "nothing"
    shares.pop(source, None)
    folder = state / f"{'all' if all_sources else 'licensed'}-{seed}-{name}"
    if "+" in seed:
        soup(
            [folder.with_name(folder.name.replace(seed, one)) / "blended" for one in seed.split("+")], folder
        )
    if not (folder / "mix").exists() and not (folder / "blended").exists():
        describe(items, folder / "mix", shares)
    if not (folder / "blended").exists():
        fine_tune(state / "start", folder / "mix", folder / "run", f"seed={seed}")
        blend(state / "start", folder / "run", folder / "blended")
    bundle = load_bundle(folder / "blended")
    used = taken(items)
    seen = Seen(
        features(bundle, used, folder / "features.npz"),
        np.array([[name in item.allowed for name in bundle.classes] for item in used]),
        np.array([item.source for item in used]),
        np.array([item.split for item in used]),
        learned,
    )
    head = SHIPPED(seen, np.flatnonzero(seen.learned & (seen.sources != source)), head_of(bundle))
    return score_source(head, seen, source) | score_home(head, seen, bundle.bins)


def soup(bundles: list[Path], folder: Path) -> None:
    """Writes the bundle of the mean of several bundles' weights (Wortsman et al. 2022, model soups)."""
    if (folder / "blended").exists():
        return
    loaded = [load_bundle(path) for path in bundles]
    mean = jax.tree.map(
        lambda *given: np.float32(np.mean(given, axis=0)), *(bundle.variables for bundle in loaded)
    )
    save_bundle(folder / "blended", uncalibrated(replace(loaded[0], variables=mean)), "int8")


def add_row(found: dict[str, Any], all_sources: bool, seed: str) -> None:
    """Adds how right the network was about the sources left out so far to what is known, or puts it anew."""
    file = RESULTS / "left_out.json"
    result = json.loads(file.read_text())
    rights = [found[source]["right"] for source in found]
    whole = set(found) == set(LEFT_OUT)
    learned = "all others" if all_sources else "all others with a license"
    weights = f"mean of seeds {seed.replace('+', ', ')}" if "+" in seed else f"seed {seed}"
    row = {
        "network": f"fine-tuned on {learned}, {weights}",
        "trial": "near its own, as shipped",
        "seed": None,
        "sources": {source: {key: found[source][key] for key in ("right", "ci95")} for source in found},
        "mean": float(np.mean(rights)) if whole else None,
        "worst": min(rights) if whole else None,
    }
    row |= {
        key: float(np.mean([found[source][key] for source in found]))
        for key in ("household", "household_bin")
    }
    row |= provenance(
        "python experiments/left_out_network.py --run=run --data=data --data2=data2 --state=state"
    )
    result["rows"] = [known for known in result["rows"] if known["network"] != row["network"]] + [row]
    write_json(file, result)


if __name__ == "__main__":
    main()
