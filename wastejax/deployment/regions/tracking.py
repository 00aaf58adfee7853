"""Objects of a video, each counted once: the boxes of `find_regions`, followed from frame to frame.

A box continues the object whose predicted place is nearest, in units of its size (Hungarian method, as in SORT,
Bewley et al. 2016). An object is predicted to go on as it did; one that was seen once, as the others do, for on a
belt all move alike. An object counts if it was seen in several frames, which a wrong box seldom is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wastejax.deployment.regions import Region


@dataclass(frozen=True)
class Rules:
    """What makes two boxes one object.

    Attributes:
        reach: largest distance between where an object is expected and where a box is, in units of their mean side.
        first_reach: the same while nothing is known of how anything moves.
        other_class: is added to that distance where the box is of another class.
        gap: frames that an object may go unseen.
        seen: frames that it must be seen in.
        memory: weight of the velocity so far against the newest one.
    """

    reach: float = 0.8
    first_reach: float = 2.0
    other_class: float = 0.2
    gap: int = 3
    seen: int = 3
    memory: float = 0.5


@dataclass
class Track:
    """An object on its way.

    Attributes:
        first: second at which it was first seen.
        last: second at which it was last seen.
        box: where it was then, float [4].
        velocity: of its center, pixels a second, float [2]; None while it was seen once.
        missed: frames since.
        seen: frames.
        votes: label -> sum of its probabilities.
        best: its surest region.
    """

    first: float
    last: float
    box: np.ndarray
    best: Region
    velocity: np.ndarray | None = None
    missed: int = 0
    seen: int = 1
    votes: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The class that most probability speaks for."""
        return max(self.votes, key=lambda label: self.votes[label])

    @property
    def probability(self) -> float:
        """Of that class, the mean over all frames."""
        return self.votes[self.label] / self.seen


def track(frames: Iterable[tuple[float, Sequence[Region]]], rules: Rules | None = None) -> Iterator[Track]:
    """Yields each object once, when it is gone.

    Args:
        frames: second, and the regions found then; in order.
        rules: None for those that were chosen.
    """
    rules = rules or Rules()
    active: list[Track] = []
    for seconds, regions in frames:
        _advance(active, seconds, regions, rules)
        yield from (gone for gone in active if gone.missed > rules.gap and gone.seen >= rules.seen)
        active = [one for one in active if one.missed <= rules.gap]
    yield from (one for one in active if one.seen >= rules.seen)


def _advance(active: list[Track], seconds: float, regions: Sequence[Region], rules: Rules) -> None:
    """Continues objects with the regions of a frame, and begins new ones; in place."""
    pairs = _matched(active, seconds, regions, rules)
    for one in active:
        one.missed += 1
    for number, region in enumerate(regions):
        box = np.array(region.box, np.float64)
        if number not in pairs:
            active.append(Track(seconds, seconds, box, region, votes={region.label: region.probability}))
            continue
        one = active[pairs[number]]
        speed = (_center(box) - _center(one.box)) / max(seconds - one.last, 1e-6)
        before = one.velocity
        one.velocity = speed if before is None else rules.memory * before + (1 - rules.memory) * speed
        one.box, one.last, one.missed, one.seen = box, seconds, 0, one.seen + 1
        one.votes[region.label] = one.votes.get(region.label, 0.0) + region.probability
        one.best = max(one.best, region, key=lambda r: r.probability)


def _matched(
    active: Sequence[Track], seconds: float, regions: Sequence[Region], rules: Rules
) -> dict[int, int]:
    """Returns number of a region -> number of the object that it continues."""
    from scipy.optimize import linear_sum_assignment

    if not active or not regions:
        return {}
    known = [one.velocity for one in active if one.velocity is not None]
    common, reach = (np.median(known, axis=0), rules.reach) if known else (np.zeros(2), rules.first_reach)
    boxes = np.array([region.box for region in regions], np.float64)
    cost = np.zeros((len(active), len(regions)))
    for i, one in enumerate(active):
        velocity = common if one.velocity is None else one.velocity
        expected = _center(one.box) + velocity * (seconds - one.last)
        distance = np.linalg.norm(_center(boxes) - expected, axis=-1)
        same = np.array([region.label == one.label for region in regions])
        cost[i] = distance / ((_side(boxes) + _side(one.box)) / 2) + np.where(same, 0, rules.other_class)
    # What is out of reach costs alike, so that it never pushes a good pair apart.
    rows, columns = linear_sum_assignment(np.minimum(cost, reach + 1))
    return {int(c): int(r) for r, c in zip(rows, columns, strict=True) if cost[r, c] <= reach}


def _center(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _side(boxes: np.ndarray) -> np.ndarray:
    """The side of a square of the same area."""
    return np.sqrt(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 1), axis=-1))
