"""How long finding near-duplicates takes as a set grows, against comparing all pairs and against faiss.

Command: python experiments/near_duplicates.py [--largest=4000000] [--grouped=1000000]
Hashes are random, a twentieth of them copies with up to eight bits turned. Times are processor seconds of the whole
process, which other programs on the machine disturb little. Comparing all pairs is measured up to 40,000 hashes and
extrapolated from there by the square. faiss (pip install faiss-cpu) is measured where it is installed, on the sizes
that end within minutes; both of its indexes are exact for eight bits. Groups (hashes and gray versions, as `train`
forms them) are measured in a process of their own for its peak memory.
Writes experiments/results/near_duplicates.json and .png.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.provenance import provenance
from wastejax.benchmark.about import facts
from wastejax.data.duplicates import group_duplicates, hamming

RESULTS = Path(__file__).resolve().parent / "results"
BITS = 8
SIZES = (10_000, 40_000, 100_000, 400_000, 1_000_000, 2_000_000, 4_000_000)
COMPARED = 40_000  # hashes of which all pairs are compared


def planted(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint64 [N] hashes and int [N], which hash each was made from."""
    rng = np.random.default_rng(17)
    hashes = rng.integers(2**64, size=count, dtype=np.uint64)
    copies = count // 20
    origin = np.arange(count)
    origin[:copies] = rng.integers(copies, count, copies)
    places = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (copies, 1)), axis=1)[:, :BITS]
    turned = np.where(np.arange(BITS) < rng.integers(BITS + 1, size=(copies, 1)), np.uint64(1) << places, 0)
    hashes[:copies] = hashes[origin[:copies]] ^ np.bitwise_or.reduce(turned.astype(np.uint64), axis=1)
    return hashes, origin


def seconds(work: Callable[[], int]) -> tuple[float, int]:
    """Returns processor seconds and the result."""
    before = time.process_time()
    found = work()
    return time.process_time() - before, found


def searched(hashes: np.ndarray) -> int:
    return sum(len(pairs) for pairs in hamming.near_pairs(hashes, hamming=BITS))


def compared(hashes: np.ndarray) -> int:
    """Returns the number of near pairs, each pair compared once."""
    count = 0
    for start in range(0, len(hashes), 512):
        near = np.bitwise_count(hashes[start : start + 512, None] ^ hashes[None, start:]) <= BITS
        i, j = np.nonzero(near)
        count += int((i < j).sum())
    return count


def by_faiss(hashes: np.ndarray, kind: str) -> int:
    """Returns the number of near pairs, by an exact search of one of faiss's indexes."""
    import faiss

    codes = hashes.view(np.uint8).reshape(-1, 8)
    # Four parts of 16 bits: two hashes within 8 bits differ in at most 2 bits of some part.
    index = faiss.IndexBinaryFlat(64) if kind == "flat" else faiss.IndexBinaryMultiHash(64, 4, 16)
    if kind == "multi-hash":
        index.nflip = 2
    index.add(codes)
    limits, _, _ = index.range_search(codes, BITS + 1)  # strictly below
    return (int(limits[-1]) - len(codes)) // 2


def grouped(count: int) -> dict[str, Any]:
    """Groups hashes and gray versions in this process; returns seconds, peak memory and whether all is right."""
    hashes, origin = planted(count)
    gray = np.random.default_rng(1).integers(256, size=(count, 32, 32), dtype=np.uint8)
    gray[: count // 20] = gray[origin[: count // 20]]
    before = time.process_time()
    groups = group_duplicates(hashes, gray, BITS)
    took = time.process_time() - before
    found, first = len(np.unique(groups)), np.unique(origin)
    return {
        "images": count,
        "seconds": round(took, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "groups": found,
        "groups_planted": len(first),
        "planted_together": bool(np.all(groups == groups[origin])),
    }


def same_groups(count: int = 50_000) -> dict[str, Any]:
    """Returns whether groups by parts of hashes are those of comparing all pairs."""
    hashes, origin = planted(count)
    gray = np.random.default_rng(1).integers(256, size=(count, 32, 32), dtype=np.uint8)
    gray[: count // 20] = gray[origin[: count // 20]]
    by_parts = group_duplicates(hashes, gray, BITS)
    chosen, hamming._best_parts = hamming._best_parts, lambda n, m, bits: 0
    try:
        by_comparing = group_duplicates(hashes, gray, BITS)
    finally:
        hamming._best_parts = chosen
    return {"images": count, "equal_to_comparing_all": bool(np.array_equal(by_parts, by_comparing))}


def measure(largest: int, count: int) -> dict[str, Any]:
    rows = []
    for size in (size for size in SIZES if size <= largest):
        hashes, _ = planted(size)
        took, found = seconds(lambda hashes=hashes: searched(hashes))
        row: dict[str, Any] = {"hashes": size, "pairs": found, "seconds": round(took, 2)}
        if size <= COMPARED:
            took, same = seconds(lambda hashes=hashes: compared(hashes))
            row["seconds_comparing_all"] = round(took, 2)
            assert same == found
        for kind, most in (("flat", 100_000), ("multi-hash", 40_000)):
            if size <= most:
                try:
                    took, same = seconds(lambda hashes=hashes, kind=kind: by_faiss(hashes, kind))
                except ImportError:
                    continue
                row[f"seconds_faiss_{kind}"] = round(took, 2)
                assert same == found
        rows.append(row)
        print(row, flush=True)
    command = [sys.executable, __file__, f"--only-grouped={count}"]
    groups = json.loads(subprocess.check_output(command, text=True))
    last = next(row for row in reversed(rows) if "seconds_comparing_all" in row)
    return {
        **provenance("python experiments/near_duplicates.py " + " ".join(sys.argv[1:])),
        "hardware": facts(2),
        "bits": BITS,
        "rows": rows,
        "ns_a_pair_compared": round(last["seconds_comparing_all"] / last["hashes"] ** 2 * 2e9, 2),
        "groups": groups,
        "same_groups": same_groups(),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    series = {
        "parts of hashes (wastejax)": "seconds",
        "comparing all": "seconds_comparing_all",
        "faiss, flat": "seconds_faiss_flat",
        "faiss, multi-hash": "seconds_faiss_multi-hash",
    }
    for label, key in series.items():
        points = [(row["hashes"], max(row[key], 0.01)) for row in result["rows"] if key in row]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=label)
    sizes = np.array([COMPARED, result["rows"][-1]["hashes"]])
    axes.loglog(sizes, result["ns_a_pair_compared"] * 1e-9 * sizes**2 / 2, "--", color="tab:orange")
    axes.set(xlabel="hashes", ylabel="processor seconds", title=f"Pairs within {BITS} of 64 bits")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--grouped", type=int, default=1_000_000)
    parser.add_argument("--only-grouped", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_grouped:
        print(json.dumps(grouped(args.only_grouped)))
        return
    result = measure(args.largest, args.grouped)
    (RESULTS / "near_duplicates.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, RESULTS / "near_duplicates.png")


if __name__ == "__main__":
    main()
