"""How many planted label errors `audit --model` finds, and how many others it names: results/label_errors.json.

Command: python experiments/label_errors.py DIR [--model=pypi:efficientnet-lite0]

Images are drawn from the class folders in DIR, some get another class at random, and each draw is searched; beside
it stands what the confident joint alone would have named.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments.provenance import provenance
from wastejax.auditing import label_errors
from wastejax.data.duplicates import group_duplicates, scan
from wastejax.data.sources import open_folder

ROOT = Path(__file__).resolve().parents[1]
DRAWS = ((367, 2, 6), (700, 20, 2), (None, 100, 1))  # images (None: all), labels changed, repetitions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--model", default="pypi:efficientnet-lite0")
    args = parser.parse_args()
    source = open_folder(args.data)
    seen = scan(source)
    good = seen.good
    features = label_errors.embed(args.model, source, good)
    groups = group_duplicates(seen.phash[good], seen.gray[good])
    rows = [measured(features, source.labels[good], groups, *draw) for draw in DRAWS]
    result = {
        **provenance(
            f"python experiments/label_errors.py {Path(args.data).resolve().name} --model={args.model}"
        ),
        "draws": rows,
    }
    path = ROOT / "experiments" / "results" / "label_errors.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


def measured(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, images: int | None, changed: int, draws: int
) -> dict[str, float]:
    """Returns means over the draws: how many images were named, and how many of those had been changed."""
    images = len(labels) if images is None else images
    found = np.zeros((2, 2))
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(labels), images, replace=False))
        given = labels[chosen].copy()
        planted = rng.choice(images, changed, replace=False)
        classes = labels.max() + 1
        given[planted] = (given[planted] + rng.integers(1, classes, changed)) % classes
        part, near = features[chosen], groups[chosen]
        every = np.arange(images)
        named = [error.image for error in label_errors.find_label_errors(part, given, near, every)]
        alone, _ = label_errors.confident_disagreement(label_errors.cross_validate(part, given, near), given)
        for row, suspects in enumerate((named, alone)):
            found[row] += len(suspects), np.isin(suspects, planted).sum()
    (named, right), (alone, alone_right) = (found / draws).tolist()
    return {
        "images": images,
        "changed": changed,
        "draws": draws,
        "named": named,
        "of_these_changed": right,
        "confident_joint_alone": alone,
        "of_those_changed": alone_right,
    }


if __name__ == "__main__":
    main()
