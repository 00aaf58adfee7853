"""What a set of images is made of: shares of classes, corrected for what the model is known to confuse.

Counting answers is biased: a model that takes a tenth of the cans for jars finds jars where there are none. What it
knows better is in its probabilities: divided by how often each class came in training, which is where they start
from, they say how well each class explains an image, and the shares are those that explain all images together
(Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities"). Here they are drawn
from their posterior, images and shares by turns (Gibbs sampling). The interval of a share is that of a proportion,
for as many images as each draw finds of it, whatever other classes there are. A temperature
does not change where probabilities start from: images that a model is calibrated on stand for those that it learned
from only where they are of the same split.

Of the objects of a video only classes are known, and of some models not how often each class came in training. Then
the model's confusions on labeled images say how answers come about, `answers = confusionᵀ · shares`, and that is
solved for the shares: adjusted counting (Forman 2008, "Quantifying counts and costs via classification", section
3), for several classes by maximum likelihood under the constraints that shares are >= 0 and sum to 1 (the EM of
Shepp and Vardi 1982). With many classes, and few images to know their confusions from, such a solution is noisier
than the counts are biased. So counts are moved towards it only as far as a bootstrap of both says that it pays.

Both assume that each class looks as it did there, that only the shares differ, and that every image shows one of
the classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.evaluation.prior import is_balanced, stored_prior
from wastejax.progress import first_of

ILL_CONDITIONED = 30.0  # condition number; above it small differences of counts become large ones of shares
FEW = 5  # images of a class, below which its row of the confusion matrix says little
RESAMPLES = 400
ITERATIONS = 30  # of the EM: more follow noise
PRIOR = 2  # images that are added to each class as answered rightly
CHAINS, BURN_IN, DRAWS = 10, 10, 30  # of the posterior: chains, and steps of each that are left out and kept
PRIOR_OF_SHARES = 0.5  # images of each class that a chain adds, so that no class stays at none (Jeffreys)
# Images of a name, and as many of all others, that its interval begins with: the reference posterior of one share
# of a multinomial, whatever the number of classes (Berger and Bernardo 1992, "Ordered group reference priors with
# application to the multinomial problem"). The prior above is 15 images of 30 classes; a folder may hold ten.
PRIOR_OF_ONE = 0.5
REPEATED = 10  # shares that are drawn for the images of each draw: they cost little
MOST_IMAGES = 20_000  # of which the posterior is drawn; of more a random part, whose intervals are wider
_MOST_CELLS = 4_000_000  # of confusion matrices at once


@dataclass(frozen=True)
class Confusion:
    """How a model answers to images of known classes.

    Attributes:
        counts: int [C, C], rows are the true classes.
        origin: the images: 'validation' or 'test'.
        balanced: the model learned as if all classes came equally often, and not as often as in these images.
        prior: float [C], see `prior.trained_on`; None where nobody knows.
        own: these images are a part of those that were split for training, so that classes come as often there.
    """

    counts: np.ndarray
    origin: str
    balanced: bool = False
    prior: np.ndarray | None = None
    own: bool = True

    @property
    def explains(self) -> bool:
        """Whether it is known how often the model expects each class; if not, probabilities explain little."""
        return self.prior is not None or self.own or self.balanced

    @property
    def rare(self) -> np.ndarray:
        """Int [K], classes of which too few images say how often the model expects them."""
        return np.flatnonzero(self.seen < FEW)

    @property
    def seen(self) -> np.ndarray:
        """Float64 [C], how often the model expects each class, in images."""
        if self.prior is not None:
            return self.prior
        seen = self.counts.sum(axis=1).astype(np.float64)
        return np.full_like(seen, seen.mean()) if self.balanced else seen

    @property
    def rates(self) -> np.ndarray:
        """Float64 [C, C], the probability of each answer (columns) to each true class (rows).

        `PRIOR` images are added to each class, answered rightly: a class without images is taken to be recognized.
        """
        return _rates(self.counts.astype(np.float64))

    @property
    def condition(self) -> float:
        """The condition number of `rates`: 1 where nothing is confused."""
        return float(np.linalg.cond(self.rates))


@dataclass(frozen=True)
class Shares:
    """Shares of several names, each with a 95 % interval.

    Attributes:
        plain: float [K], by counting answers.
        plain_ci95: float [K, 2].
        corrected: float [K], for confusions; None where these are not known.
        corrected_ci95: float [K, 2]; None likewise.
        weight: how far the counts were moved towards what explains them best, 0 to 1; None where probabilities were
            known, which need no such caution.
    """

    plain: np.ndarray
    plain_ci95: np.ndarray
    corrected: np.ndarray | None = None
    corrected_ci95: np.ndarray | None = None
    weight: float | None = 0.0


def stored_confusion(bundle: Path, num_classes: int) -> Confusion | None:
    """Returns the confusion matrix that a bundle has from its validation images, or else from its test images.

    Args:
        bundle: its folder; of an exported file nothing is known.
        num_classes: of the model.
    """
    prior = stored_prior(bundle, num_classes)
    for name, keys, origin in (
        ("bundle.json", ("confusion",), "validation"),
        ("evaluation.json", ("test", "confusion"), "test"),
    ):
        try:
            found: Any = json.loads((bundle / name).read_bytes())
            for key in keys:
                found = found[key]
            counts = np.array(found, np.int64)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if counts.shape == (num_classes, num_classes) and (counts >= 0).all() and counts.any():
            # A bundle's validation images may be any that it was calibrated on.
            return Confusion(counts, origin, is_balanced(bundle), prior, own=origin == "test")
    return None


def doubts(confusion: Confusion | None, classes: Sequence[str], probabilities: bool = False) -> list[str]:
    """Returns why there are no corrected shares, or why they should be taken with care; one line each.

    Args:
        confusion: see `estimate`.
        classes: of the model.
        probabilities: whether `estimate` is given any.
    """
    if confusion is None:
        return [
            "no correction: the model has no confusion matrix; `wastejax eval --model=RUN --calibrate` stores one; "
            "exported files have none"
        ]
    lines = []
    if probabilities and confusion.explains:
        if len(confusion.rare):
            return [
                f"no correction: fewer than {FEW} images tell how often the model expects "
                f"{first_of([classes[i] for i in confusion.rare], 5)}; `wastejax eval --model=RUN --calibrate` "
                "takes it from the run's training images"
            ]
        if confusion.prior is None and not confusion.balanced:
            lines.append(
                "how often each class came in training is not known: the corrected shares take it that they came "
                f"as in the model's {confusion.origin} images"
            )
    else:
        if probabilities:
            lines.append(
                "shares are corrected by answers alone, not by probabilities, since how often each class came in "
                "training is not known; `wastejax eval --model=RUN --calibrate` stores it, for a run on one folder"
            )
        few = [classes[i] for i, count in enumerate(confusion.counts.sum(axis=1)) if count < FEW]
        if few:
            lines.append(
                f"its confusions are known from fewer than {FEW} images of {first_of(few, 5)}: their shares "
                "are uncertain"
            )
    if confusion.condition > ILL_CONDITIONED:
        lines.append(
            f"the model confuses some classes so much that their shares can hardly be told apart (condition number "
            f"{confusion.condition:.0f}): trust the shares of bins or materials more than those of classes"
        )
    return lines


def estimate(
    counts: np.ndarray,
    confusion: Confusion | None,
    groups: Sequence[np.ndarray],
    resamples: int = RESAMPLES,
    seed: int = 17,
    probabilities: np.ndarray | None = None,
) -> list[Shares]:
    """Estimates shares of classes and of sums of them.

    Args:
        counts: int [C], images by the class that was answered.
        confusion: of the model; None where it is not known. With probabilities only how often the model expects
            each class is read, if that is known; nothing is corrected where too few images of a class tell it.
        groups: bool [K, C] each: K names, and the classes that count for each.
        resamples: bootstrap resamples, of the images and of the confusion matrix alike.
        seed: of these, or of the posterior.
        probabilities: float [N, C], calibrated, of those images; None where they are not known.

    Returns:
        For each of `groups` the shares of its K names.

    Raises:
        ValueError: there are no images.
    """
    counts = np.asarray(counts, np.int64)
    if not counts.sum():
        raise ValueError("there are no images to count")
    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    plain = counts / total
    drawn = rng.multinomial(total, plain, resamples) / total
    explained = probabilities is not None and confusion is not None and confusion.explains
    if confusion is None or (explained and len(confusion.rare)):
        return [_shares(group, plain, drawn, total) for group in groups]
    if explained:
        dealt = posterior(np.asarray(probabilities), confusion.seen, rng)
        corrected = dealt.mean(axis=0) / dealt[0].sum()
        return [
            _shares(group, plain, drawn, total, corrected, _of_all(dealt, group, rng)) for group in groups
        ]
    solved = adjusted(plain[None], confusion.rates[None])[0]
    resampled = _adjusted_resamples(drawn, confusion.counts, rng)
    weight = _weight(plain, drawn, solved, resampled)
    corrected = plain + weight * (solved - plain)
    return [
        _shares(group, plain, drawn, total, corrected, resampled @ np.asarray(group, np.float64).T, weight)
        for group in groups
    ]


def posterior(probabilities: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws what images are made of, given a model's probabilities; see the module.

    Args:
        probabilities: float [N, C], calibrated.
        seen: float [C], see `Confusion.seen`. How well these few images tell how often each class comes is drawn
            too, once for a chain.
        rng: draws.

    Returns:
        Int [R, C], how many of these images are of each class.
    """
    if len(probabilities) > MOST_IMAGES:
        probabilities = probabilities[rng.choice(len(probabilities), MOST_IMAGES, replace=False)]
    p = np.asarray(probabilities, np.float64)
    count, classes = p.shape
    dealt: list[np.ndarray] = []
    for _ in range(CHAINS):
        likelihood = p / rng.dirichlet(seen + 1.0)
        shares = p.mean(axis=0)
        for step in range(BURN_IN + DRAWS):
            reach = np.cumsum(likelihood * shares, axis=1)
            drawn = (reach < rng.random((count, 1)) * reach[:, -1:]).sum(axis=1)
            counts = np.bincount(drawn, minlength=classes)
            shares = rng.dirichlet(counts + PRIOR_OF_SHARES)
            if step >= BURN_IN:
                dealt.append(counts)
    return np.array(dealt)


def _of_all(dealt: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns shares among all images of the kind, float64 [R * REPEATED, K], given those of each class of some."""
    group = np.asarray(group, bool)
    own = np.repeat(dealt @ group.T, REPEATED, axis=0)
    shares = rng.beta(own + PRIOR_OF_ONE, dealt[0].sum() - own + PRIOR_OF_ONE)
    # A name of all classes, or of none, leaves nothing open.
    return np.where(group.all(axis=1), 1.0, np.where(group.any(axis=1), shares, 0.0))


def adjusted(answers: np.ndarray, rates: np.ndarray, iterations: int = ITERATIONS) -> np.ndarray:
    """Returns float64 [R, C], the shares that make the answers likeliest: >= 0, of sum 1.

    Args:
        answers: float [R, C], shares of the answers.
        rates: float [R, C, C], see `Confusion.rates`.
        iterations: from the answers on; few of them stay nearer to these.
    """
    shares = (answers + 1e-3) / (answers + 1e-3).sum(axis=1, keepdims=True)  # what is 0 would stay 0
    for _ in range(iterations):
        expected = np.einsum("ri,rij->rj", shares, rates)
        shares = shares * np.einsum("rj,rij->ri", answers / np.maximum(expected, 1e-12), rates)
    return shares


def _adjusted_resamples(drawn: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns `adjusted` of resampled answers, float [R, C], each with a resampled confusion matrix."""
    at_once = max(1, _MOST_CELLS // counts.size)
    found = []
    for start in range(0, len(drawn), at_once):
        part = drawn[start : start + at_once]
        found.append(adjusted(part, _rates(np.stack([_resampled(counts, rng) for _ in part]))))
    return np.concatenate(found)


def _weight(plain: np.ndarray, drawn: np.ndarray, solved: np.ndarray, resampled: np.ndarray) -> float:
    """Returns how far to go from the counts (0) to the solution (1), so that the expected squared error is least.

    The bias of the counts is what the two differ by, less what they would by chance.
    """
    step, noise = solved - plain, (resampled - drawn) - (solved - plain)
    variance = (noise**2).sum(axis=1).mean()
    shared = ((drawn - plain) * noise).sum(axis=1).mean()
    bias = max(float((step**2).sum() - variance), 0.0)
    return float(np.clip((bias - shared) / max(bias + variance, 1e-12), 0, 1))


def _rates(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + PRIOR * np.eye(counts.shape[-1])
    return smoothed / smoothed.sum(axis=-1, keepdims=True)


def _resampled(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a confusion matrix of as many images of each class, drawn from those there are."""
    rows = [rng.multinomial(row.sum(), row / row.sum()) if row.any() else row for row in counts]
    return np.array(rows, np.float64)


def _shares(
    group: np.ndarray,
    plain: np.ndarray,
    drawn: np.ndarray,
    total: int,
    corrected: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    weight: float | None = None,
) -> Shares:
    """Returns the shares of K names; `rows` are draws of the corrected ones, float64 [R, K]."""
    group = np.asarray(group, np.float64)

    def interval(rows: np.ndarray, value: np.ndarray) -> np.ndarray:
        low, high = np.percentile(rows, [2.5, 97.5], axis=0)
        # Outwards to whole images: less than one is none.
        low, high = np.floor(total * low) / total, np.ceil(total * high) / total
        # A bootstrap may leave out a value that counts and confusions were weighed for.
        return np.stack([np.minimum(low, value), np.clip(np.maximum(high, value), 0, 1)], axis=1)

    counted = group @ plain
    if corrected is None or rows is None:
        return Shares(counted, interval(drawn @ group.T, counted))
    value = group @ corrected
    return Shares(counted, interval(drawn @ group.T, counted), value, interval(rows, value), weight)


def grouped(names: Sequence[str], of_class: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Returns bool [K, C], which classes count for each name; see `estimate`."""
    return np.array([[of_class.get(label, "") == name for label in classes] for name in names], bool)
