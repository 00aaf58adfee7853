import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.evaluation.report import plots

HISTORY = [
    {"epoch": 1, "train_loss": 3.0, "train_top1": 0.1, "val_loss": 2.9, "val_top1": 0.2, "lr": 1e-2},
    {"epoch": 2, "train_loss": 2.0, "train_top1": 0.4, "val_loss": 2.2, "val_top1": 0.3, "lr": 1e-2},
    {"epoch": 3, "train_loss": 1.0, "train_top1": 0.7, "val_loss": 2.0, "val_top1": 0.5, "lr": 1e-4},
]


def opened(path, largest=150_000):
    """The PNG as RGB uint8 [H, W, 3], after checks that hold for every figure."""
    assert path.stat().st_size < largest
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing unfinished is left behind"
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels == 255).all(axis=2).mean() < 0.99, "the figure is blank"
    return pixels


TRUE_COLOR = 450_000  # bytes of 24 photographs, without a palette


def drawn_lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def photos(count, height=64, width=64):
    """Smooth color gradients, each of its own color, so that an image can be told from another."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    for k in range(count):
        yield np.stack([200 * x, 200 * y, np.full_like(x, 9 * k)], axis=2).astype(np.uint8)


def test_curves_show_the_history(tmp_path):
    figure = plots.curves(HISTORY, tmp_path / "curves.png", best_epoch=3)
    loss, top1, rate = figure.axes
    assert drawn_lines(loss)["training"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert drawn_lines(loss)["validation"] == [[1, 2.9], [2, 2.2], [3, 2.0]]
    np.testing.assert_allclose(drawn_lines(top1)["validation"], [[1, 20], [2, 30], [3, 50]])
    assert drawn_lines(rate)["learning rate"] == [[1, 1e-2], [2, 1e-2], [3, 1e-4]]
    assert all(drawn_lines(ax)["best epoch"][0][0] == 3 for ax in figure.axes)
    assert rate.get_yscale() == "log"
    assert opened(tmp_path / "curves.png").shape == (round(2.8 * plots.DPI), round(9.6 * plots.DPI), 3)


def test_curves_leave_out_what_was_not_measured(tmp_path):
    history = [
        {"epoch": 1, "train_loss": 3.0, "val_loss": None, "val_top1": None, "lr": 0.001},
        {"epoch": 2, "train_loss": 2.0, "val_loss": 2.2, "val_top1": 0.3, "lr": 0.001},
    ]
    loss, top1, rate = plots.curves(history, tmp_path / "curves.png").axes
    assert drawn_lines(loss) == {"training": [[1, 3.0], [2, 2.0]], "validation": [[2, 2.2]]}
    assert list(drawn_lines(top1)) == ["validation"]
    assert rate.get_yscale() == "linear"


def test_curves_of_one_epoch_are_visible_dots(tmp_path):
    loss, *_ = plots.curves(HISTORY[:1], tmp_path / "curves.png").axes
    assert [line.get_marker() for line in loss.get_lines()] == ["o", "o"]
    low, high = loss.get_ylim()
    assert low == 0
    assert high > 3.0
    blue = np.array([0x00, 0x72, 0xB2])
    near = np.abs(opened(tmp_path / "curves.png").astype(int) - blue).max(axis=2) < 12
    assert near.sum() > 40


def test_curves_need_an_epoch(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        plots.curves([], tmp_path / "curves.png")


def test_confusion_matrix_is_normalized_by_row(tmp_path):
    figure = plots.confusion_matrix([[3, 1, 0], [0, 0, 0], [0, 0, 8]], ["a", "b_c", "d"], tmp_path / "c.png")
    (ax,) = figure.axes
    shares = ax.get_images()[0].get_array()
    np.testing.assert_allclose(np.ma.filled(shares, -1), [[0.75, 0.25, 0], [-1, -1, -1], [0, 0, 1]])
    written = {(t.get_position(), t.get_text()) for t in ax.texts}
    assert written == {((0, 0), "75"), ((1, 0), "25"), ((2, 2), "100")}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a (4)", "b c (0)", "d (8)"]
    opened(tmp_path / "c.png")


def test_confusion_matrix_of_thirty_classes_is_readable(tmp_path):
    rng = np.random.default_rng(0)
    confusion = rng.poisson(1.0, (30, 30)) + 30 * np.eye(30, dtype=int)
    classes = [f"disposable_plastic_thing_{i}" for i in range(30)]
    figure = plots.confusion_matrix(confusion, classes, tmp_path / "c.png")
    (ax,) = figure.axes
    renderer = figure.canvas.get_renderer()
    inside = figure.bbox
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [label.get_window_extent(renderer) for label in labels]
        assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 and b.y0 >= 0 and b.y1 <= inside.y1 for b in boxes)
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    cell = ax.get_window_extent(renderer).width / 30
    assert max(t.get_window_extent(renderer).width for t in ax.texts) < cell
    assert max(opened(tmp_path / "c.png").shape) < 1500


def test_class_distribution_stacks_the_splits(tmp_path):
    counts = {"train": {"few": 3, "many": 30}, "val": {"many": 10}, "test": {"few": 1, "many": 9}}
    figure = plots.class_distribution(counts, tmp_path / "d.png")
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["many", "few"]
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 30), (0, 3), (30, 10), (3, 0), (40, 9), (3, 1)]
    assert [t.get_text() for t in ax.texts] == ["49", "4"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["train (33)", "val (10)", "test (10)"]
    opened(tmp_path / "d.png")


def test_class_distribution_of_many_classes_shows_both_ends(tmp_path):
    counts = {"train": {f"class_{i:03}": 1000 - i for i in range(500)}, "val": {"class_250": 7}}
    figure = plots.class_distribution(counts, tmp_path / "d.png")
    (ax,) = figure.axes
    shown = [t.get_text() for t in ax.get_yticklabels()]
    assert shown == [f"class {i:03}" for i in (*range(30), *range(470, 500))]
    assert ax.get_ylabel() == "the 30 largest and smallest classes; 440 between are not shown"
    total = sum(1000 - i for i in range(500))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [f"train ({total:,})", "val (7)"]
    assert opened(tmp_path / "d.png").shape[0] < 2000


def test_sample_grid_shows_the_images_in_order(tmp_path):
    images = [*photos(7), np.full((20, 50), 128, np.uint8)]
    figure = plots.sample_grid(images, [f"plastic_cup_lids {i}" for i in range(8)], tmp_path / "s.png")
    used = [ax for ax in figure.axes if ax.get_images()]
    assert [ax.get_title(loc="left") for ax in used] == [f"plastic cup lids {i}" for i in range(8)]
    assert [int(ax.get_images()[0].get_array()[0, 0, 2]) for ax in used] == [*range(0, 63, 9), 128]
    assert used[-1].get_images()[0].get_array().shape == (20, 50, 3)
    opened(tmp_path / "s.png")


def test_sample_grid_draws_at_most_24_and_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    rough = [np.clip(p + rng.normal(0, 12, p.shape), 0, 255).astype(np.uint8) for p in photos(28, 300, 400)]
    figure = plots.sample_grid(rough, ["glass"] * 28, tmp_path / "s.png")
    assert sum(bool(ax.get_images()) for ax in figure.axes) == 24
    with pytest.raises(ValueError, match="2 and 1"):
        plots.sample_grid(rough[:2], ["glass"], tmp_path / "s.png")
    opened(tmp_path / "s.png", TRUE_COLOR)


@pytest.mark.real_data
def test_sample_grid_of_real_images_is_small(tmp_path, real_data_dir):
    files = sorted((real_data_dir / "trashnet").glob("*/*"))[::83][:24]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    plots.sample_grid(images, [file.parent.name for file in files], tmp_path / "s.png")
    assert opened(tmp_path / "s.png", TRUE_COLOR).shape[1] == 900


def test_photographs_keep_their_colors(tmp_path):
    gradients = list(photos(6, plots.THUMBNAIL, plots.THUMBNAIL))
    labels = ["glass"] * 6
    plots.sample_grid(gradients, labels, tmp_path / "samples" / "s.png")
    plots.worst_mistakes(gradients, labels, ["metal"] * 6, [0.9] * 6, tmp_path / "mistakes" / "w.png")
    for file in (tmp_path / "samples" / "s.png", tmp_path / "mistakes" / "w.png"):
        colors = np.unique(opened(file, TRUE_COLOR).reshape(-1, 3), axis=0)
        assert len(colors) > 5000, "a palette of at most 256 colors bands skies and skin"


def test_worst_mistakes_come_surest_first(tmp_path):
    figure = plots.worst_mistakes(
        list(photos(3)), ["shoes", "glass", "paper"], ["glass", "metal", "tea_bags"], [0.5, 0.99, 0.7],
        tmp_path / "w.png",
    )  # fmt: skip
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "truth: glass",
        "truth: paper",
        "truth: shoes",
    ]
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "said: metal, 99%", "said: tea bags, 70%", "said: glass, 50%"
    ]  # fmt: skip
    assert [int(ax.get_images()[0].get_array()[0, 0, 2]) for ax in figure.axes] == [9, 18, 0]
    opened(tmp_path / "w.png")


def test_heat_maps_are_drawn_below_their_images(tmp_path):
    photos, maps = np.full((2, 40, 40, 3), 10, np.uint8), np.full((2, 40, 40, 3), 200, np.uint8)
    figure = plots.worst_mistakes(
        list(photos), ["a", "b"], ["b", "a"], [0.9, 0.8], tmp_path / "w.png", list(maps)
    )
    drawn = figure.axes[0].get_images()[0].get_array()
    assert len(figure.axes) == 2 and drawn.shape == (80, 40, 3)
    assert (drawn[:36] == 10).all() and (drawn[44:] == 200).all()


def test_no_mistakes_is_said(tmp_path):
    figure = plots.worst_mistakes([], [], [], [], tmp_path / "w.png")
    assert [t.get_text() for t in figure.texts] == ["No mistakes"]


def test_names_in_korean_and_with_dollars_do_not_warn_or_fail(tmp_path):
    # Warnings are errors in this suite; a single $...$ would be typeset as a formula and lose its signs.
    figure = plots.confusion_matrix([[1, 0], [0, 1]], ["종이컵", "$5_bottle$"], tmp_path / "c.png")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["종이컵", "$5 bottle$"]
    assert figure.axes[0].get_xticklabels()[1].get_parse_math() is False


def test_letters_that_no_font_has_are_said_once_with_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(plots, "KOREAN_FONTS", ())
    plots._say_missing_font.cache_clear()
    for name in ("a.png", "b.png"):
        plots.class_distribution({"train": {"종이컵": 3, "유리병": 2}}, tmp_path / name)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "wastejax"]
    assert "no font for some letters" in said and "fonts-noto-cjk" in said
    caplog.clear()
    plots._say_missing_font.cache_clear()
    plots.class_distribution({"train": {"glass": 3}}, tmp_path / "c.png")
    assert not caplog.records


def test_other_warnings_of_a_figure_are_passed_on():
    with pytest.warns(UserWarning, match="the axes are odd"), plots.styled():
        warnings.warn("the axes are odd", stacklevel=1)


def test_matplotlib_settings_are_left_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.curves(HISTORY, tmp_path / "new" / "folder" / "curves.png")
    assert dict(matplotlib.rcParams) == before


def test_importing_evaluation_loads_no_heavy_library():
    heavy = "{'matplotlib', 'sklearn', 'jax', 'tensorflow'}"
    modules = (
        "import wastejax.evaluation.report.plots, wastejax.evaluation.report.run, wastejax.evaluation.metrics"
    )
    code = f"import sys; {modules}; print(*sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == ""
