"""The figures of a run, as small PNG files. Each function also returns its figure.

Matplotlib takes half a second to import and is therefore imported where it is used; `pyplot` and its global
state are not needed at all.
"""

import io
import logging
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wastejax.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
# Okabe & Ito (2008): apart from each other for color-blind readers too.
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#b23a00"
SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}

# Matplotlib's own font has no Hangul; these do, on Linux, Windows and macOS, where they are installed.
KOREAN_FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",  # the whole CJK collection to Matplotlib < 3.11
    "Noto Sans KR",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
)

STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.size": 8,
    "grid.color": GRID,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called '$5 notes $'
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
}

THUMBNAIL = 112  # pixels
MAX_CLASSES_WITH_NUMBERS = 45  # beyond, the cells of a matrix are too small for them
MAX_THUMBNAILS = 24
MAX_BARS = 60  # of classes; beyond, the largest and the smallest stand for all

log = logging.getLogger("wastejax")


def curves(history: Sequence[Mapping[str, Any]], path: Path | str, best_epoch: int | None = None) -> "Figure":
    """Draws loss, top-1 and learning rate by epoch.

    Args:
        history: one dict per epoch with `epoch`, `train_loss`, `train_top1`, `val_loss`, `val_top1`, `lr`;
            all but the first may be absent or None.
        path: where the PNG goes.
        best_epoch: marked with a line, if given.

    Returns:
        The figure; its axes are loss, top-1 (in per cent) and learning rate.

    Raises:
        ValueError: the history is empty.
    """
    if not history:
        raise ValueError("there is no epoch to draw")
    with drawing(path, (9.6, 2.8), 1, 3) as (figure, (loss, top1, rate)):
        for split, color in (("train", BLUE), ("val", ORANGE)):
            label = {"train": "training", "val": "validation"}[split]
            _draw_series(loss, history, f"{split}_loss", color, label)
            _draw_series(top1, history, f"{split}_top1", color, label, scale=100)
        _draw_series(rate, history, "lr", MUTED, "learning rate")
        epochs = [row["epoch"] for row in history]
        for ax, title in ((loss, "Loss"), (top1, "Top-1 accuracy (%)"), (rate, "Learning rate")):
            _draw_epochs(ax, title, (min(epochs), max(epochs)), best_epoch)
        rates = [row["lr"] for row in history if row.get("lr")]
        if rates and max(rates) > 20 * min(rates):
            rate.set_yscale("log")
            rate.autoscale(axis="y")
            rate.minorticks_off()
        rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for ax in (loss, top1):
            if ax.get_lines():
                ax.legend()
    return figure


def confusion_matrix(
    confusion: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[str], path: Path | str
) -> "Figure":
    """Draws what each class was taken for, every row as shares of that class.

    Args:
        confusion: int [C, C] counts, rows = truth. A row without images stays empty.
        classes: C names.
        path: where the PNG goes.

    Returns:
        The figure; the one image in its axes holds the shares, NaN where a class has no images.
    """
    counts = np.asarray(confusion)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.where(support > 0, counts / np.maximum(support, 1), np.nan)
    names = [_pretty(name) for name in classes]
    cells = float(np.clip(0.27 * len(names), 3.0, 11.0))  # inches, as is the room for the names beside them
    margin = 0.8 + 0.06 * max(len(name) for name in names)
    with drawing(path, (cells + margin + 0.3, cells + margin)) as (figure, ax):
        ax.imshow(shares, cmap=_blues(), vmin=0, vmax=1)
        ax.set_title("What each class was taken for, in %")
        ax.set_xlabel("predicted")
        ax.set_ylabel("true (number of images)")
        every = range(len(names))
        ax.set_xticks(every, names, rotation=90)
        ax.set_yticks(every, [f"{name} ({n})" for name, n in zip(names, support[:, 0], strict=True)])
        ax.spines[:].set_visible(False)
        # Light lines between the cells lead the eye from a cell to its two names.
        ax.set_xticks(np.arange(len(names)) + 0.5, minor=True)
        ax.set_yticks(np.arange(len(names)) + 0.5, minor=True)
        ax.grid(which="minor", linewidth=0.5)
        ax.tick_params(which="both", length=0)
        if len(names) <= MAX_CLASSES_WITH_NUMBERS:
            _write_shares(ax, shares, size=8 if len(names) <= 12 else 6.5)
    return figure


def class_distribution(counts: Mapping[str, Mapping[str, int]], path: Path | str) -> "Figure":
    """Draws how many images each class has in each split, the largest class first.

    Of more than `MAX_BARS` classes the largest and the smallest are drawn, half of them each.

    Args:
        counts: {split: {class: number of images}}; the splits are stacked in this order.
        path: where the PNG goes.

    Returns:
        The figure; its bars come split by split, top to bottom.
    """
    totals: Counter[str] = Counter()
    for of_split in counts.values():
        totals.update(of_split)
    names = sorted(totals, key=lambda name: (-totals[name], name))
    hidden = len(names) - MAX_BARS
    if hidden > 0:
        names = names[: MAX_BARS // 2] + names[-MAX_BARS // 2 :]
    with drawing(path, (6.4, 1.2 + 0.2 * len(names))) as (figure, ax):
        left = np.zeros(len(names))
        for i, (split, of_split) in enumerate(counts.items()):
            widths = np.array([of_split.get(name, 0) for name in names])
            color = SPLIT_COLORS.get(split, (BLUE, ORANGE, GREEN, MUTED)[i % 4])
            label = f"{split} ({sum(of_split.values()):,})"
            ax.barh(range(len(names)), widths, left=left, height=0.72, color=color, label=label)
            left += widths
        for row, total in enumerate(left):
            ax.annotate(
                f"{total:,.0f}", (total, row), (3, 0), textcoords="offset points", va="center", size=7
            )
        ax.set_yticks(range(len(names)), [_pretty(name) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.margins(x=0.08)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("images")
        if hidden > 0:
            ax.axhline(MAX_BARS / 2 - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
            ax.set_ylabel(
                f"the {MAX_BARS // 2} largest and smallest classes; {hidden:,} between are not shown"
            )
        figure.legend(loc="outside upper left", ncols=max(len(counts), 1))
    return figure


def sample_grid(images: Sequence[np.ndarray], titles: Sequence[str], path: Path | str) -> "Figure":
    """Draws a grid of images, each with its title; the first 24 where there are more.

    Args:
        images: uint8 [H, W, 3] or [H, W], of any sizes.
        titles: one per image.
        path: where the PNG goes.

    Returns:
        The figure, one axes per image.

    Raises:
        ValueError: there are no images, or not as many titles.
    """
    if len(images) == 0 or len(images) != len(titles):
        raise ValueError(f"a grid needs images and as many titles; got {len(images)} and {len(titles)}")
    with styled() as new_figure:
        figure, axes = _thumbnails(new_figure, images, lines=2)
        for ax, title in zip(axes, titles, strict=False):
            ax.set_title(_wrapped(title), fontsize=6.5)
        save(figure, path, photographs=True)
    return figure


def worst_mistakes(
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    path: Path | str,
    heat_maps: Sequence[np.ndarray] | None = None,
) -> "Figure":
    """Draws wrongly classified images, the ones the model was surest of first.

    Args:
        images: uint8 [H, W, 3] or [H, W], of any sizes; may be empty, which the figure then says.
        truths: the true class names.
        predictions: the predicted class names.
        probabilities: what the model gave to them, fractions.
        path: where the PNG goes.
        heat_maps: drawn below each image: the same with what spoke for the prediction laid over it.

    Returns:
        The figure, one axes per image, at most 24.
    """
    stacks = [list(stack) for stack in zip(images, *([heat_maps] if heat_maps else []), strict=True)]
    order = np.argsort(-np.asarray(probabilities, dtype=np.float64), kind="stable")[:MAX_THUMBNAILS]
    with styled() as new_figure:
        if not len(order):
            figure = new_figure(figsize=(4, 1))
            figure.text(0.5, 0.5, "No mistakes", ha="center", va="center", color=MUTED)
        else:
            figure, axes = _thumbnails(
                new_figure, [np.concatenate(stacks[i]) for i in order], 4, len(stacks[0])
            )
            for ax, i in zip(axes, order, strict=True):
                ax.set_title(_wrapped(f"truth: {truths[i]}"), fontsize=6.5)
                said = _wrapped(f"said: {predictions[i]}, {100 * probabilities[i]:.0f}%")
                ax.set_xlabel(said, fontsize=6.5, color=RED, loc="left")
        save(figure, path, photographs=True)
    return figure


@contextmanager
def drawing(
    path: Path | str, size: tuple[float, float], rows: int = 1, columns: int = 1, **axes: Any
) -> Iterator[tuple["Figure", Any]]:
    """Yields a figure, its size in inches, and its axes, as `subplots` returns them; saves it in the end."""
    with styled() as new_figure:
        figure = new_figure(figsize=size)
        yield figure, figure.subplots(rows, columns, **axes)
        save(figure, path)


@contextmanager
def styled() -> Iterator[Callable[..., "Figure"]]:
    """Yields a constructor of figures in the shared style, which lasts until they are saved."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans", *(font for font in KOREAN_FONTS if font in installed)]
    with (
        matplotlib.rc_context(STYLE | {"font.family": families}),
        warnings.catch_warnings(record=True) as caught,
    ):
        # Where warnings are errors, a missing letter is none.
        warnings.filterwarnings("always", message="Glyph .* missing from")
        yield partial(Figure, dpi=DPI, layout="constrained")
    missing = False
    for warning in caught:
        if re.match("Glyph .* missing from", str(warning.message)):
            missing = True  # a warning for each letter would help nobody
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        _say_missing_font()


@cache
def _say_missing_font() -> None:
    """Says, once, why names are boxes in the figures."""
    log.warning(
        "note: no font for some letters of the class names, which are boxes in the figures; one for Chinese, "
        "Japanese and Korean: apt install fonts-noto-cjk, or https://fonts.google.com/noto, "
        "then train or evaluate anew"
    )


def save(figure: "Figure", path: Path | str, photographs: bool = False) -> None:
    """Writes a PNG: with a palette, which has a third of the size, or for photographs in true color."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    written = pixels if photographs else pixels.quantize(128, dither=Image.Dither.NONE)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()
    written.save(encoded, format="PNG", optimize=True, dpi=(DPI, DPI))
    write_bytes(path, encoded.getvalue())


def _blues() -> Any:
    """White to the palette's blue; gray where there is no value."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blues", ["#ffffff", "#6aaed6", BLUE, "#00365c"]).with_extremes(
        bad=GRID
    )


def _write_shares(ax: "Axes", shares: np.ndarray, size: float) -> None:
    """Writes the per cents into the cells of a matrix; what rounds to 0 stays empty."""
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        color = "white" if share > 0.4 else INK
        ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, size=size)


def _draw_epochs(ax: "Axes", title: str, epochs: tuple[int, int], best_epoch: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_title(title)
    ax.set_xlabel("epoch")
    margin = max(0.04 * (epochs[1] - epochs[0]), 0.5)
    ax.set_xlim(epochs[0] - margin, epochs[1] + margin)
    ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    ax.grid(axis="y", linewidth=0.6)
    if best_epoch is not None:
        ax.axvline(best_epoch, color=MUTED, linewidth=0.8, linestyle=":", label="best epoch")


def _draw_series(
    ax: "Axes", history: Sequence[Mapping[str, Any]], key: str, color: str, label: str, scale: float = 1.0
) -> None:
    points = [(row["epoch"], scale * row[key]) for row in history if row.get(key) is not None]
    if points:
        # A single epoch draws no line, so it gets a dot.
        ax.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) == 1 else "")


def _thumbnails(
    new_figure: Callable[..., "Figure"], images: Sequence[np.ndarray], lines: int, stacked: int = 1
) -> tuple["Figure", list["Axes"]]:
    """Lays out at most MAX_THUMBNAILS images, `stacked` squares high, with lines of text around each."""
    images = images[:MAX_THUMBNAILS]
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = new_figure(figsize=(max(1.25 * columns, 2.5), (0.97 * stacked + 0.15 * lines) * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid:
        ax.axis("off")
    for ax, image in zip(grid, images, strict=False):
        small = Image.fromarray(image).convert("RGB")
        small.thumbnail((THUMBNAIL, stacked * THUMBNAIL), Image.Resampling.BILINEAR)
        ax.axis("on")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.imshow(np.asarray(small))
    return figure, list(grid[: len(images)])


def _pretty(name: str) -> str:
    return name.replace("_", " ")


def _wrapped(text: str) -> str:
    return textwrap.fill(_pretty(text), 21, max_lines=2, placeholder=" …")
