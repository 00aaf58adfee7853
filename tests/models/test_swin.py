import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.errors import ConfigError
from wastejax.models import MODELS, check, create_model
from wastejax.models.swin import (
    PatchMerging,
    SwinBlock,
    WindowAttention,
    attention_mask,
    from_windows,
    relative_positions,
    to_windows,
)


@pytest.mark.parametrize(("name", "parameters"), [("swin_t", 27_550_152), ("swin_t_w7", 27_542_424)])
def test_parameters_are_those_of_timm(name, parameters):
    module = create_model(MODELS[name], num_classes=30).module
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters


def test_windows_hold_neighbors_and_come_back():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = to_windows(x, 2)
    assert windows.shape == (2, 6, 4, 1)
    assert windows[0, 1, :, 0].tolist() == [2, 3, 8, 9]  # second window of the first two rows
    assert windows[0, 3, :, 0].tolist() == [12, 13, 18, 19]
    np.testing.assert_array_equal(from_windows(windows, 4, 6), x)


def test_relative_positions_of_a_2x2_window():
    # Offsets (rows, columns) run over -1..1 each; row 3 * (dr + 1) + dc + 1 of the table.
    assert relative_positions(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


@pytest.mark.parametrize(
    ("height", "width", "shifts"), [(8, 12, (2, 2)), (8, 4, (2, 0)), (6, 10, (2, 2)), (3, 3, (0, 0))]
)
def test_mask_lets_neighbors_attend_and_no_padding(height, width, shifts):
    window = 4
    padded_height, padded_width = -(-height // window) * window, -(-width // window) * window
    rows, columns = np.indices((padded_height, padded_width))
    rows, columns = (
        to_windows(np.roll(x, (-shifts[0], -shifts[1]), (0, 1))[None, :, :, None], window)[0, :, :, 0]
        for x in (rows, columns)
    )
    real = (rows < height) & (columns < width)
    near = (abs(rows[:, :, None] - rows[:, None]) < window) & (
        abs(columns[:, :, None] - columns[:, None]) < window
    )

    mask = attention_mask(height, width, window, shifts)[:, 0]
    both_real = real[:, :, None] & real[:, None]
    np.testing.assert_array_equal(mask[both_real], near[both_real])
    assert not mask[real[:, :, None] != real[:, None]].any()
    assert mask.any(-1).all()  # or the softmax of a row would be undefined


def test_no_mask_where_every_window_is_whole():
    assert attention_mask(8, 8, 4, (0, 0)) is None


def test_window_attention_by_hand():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 4, 6)).astype(np.float32)  # one window of 2x2, two heads of width 3
    module = WindowAttention(heads=2, window=2)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
        module.init(jax.random.key(0), x)["params"],
    )
    qkv = x[0, 0] @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    heads = []
    for head in range(2):
        query, key, value = (qkv[:, 6 * i + 3 * head : 6 * i + 3 * head + 3] for i in range(3))
        scores = query @ key.T / np.sqrt(3)
        for i in range(4):
            for j in range(4):
                offset = 3 * (i // 2 - j // 2 + 1) + (i % 2 - j % 2 + 1)
                scores[i, j] += params["relative_position_bias_table"][offset, head]
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        heads.append(weights @ value)
    expected = np.concatenate(heads, 1) @ params["proj"]["kernel"] + params["proj"]["bias"]
    ours = module.apply({"params": params}, x)[0, 0]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    """A 2x2 map in a window of 4 attends as it does in a window of 2 with the middle of the same table."""
    x = jax.random.normal(jax.random.key(1), (2, 2, 2, 8))
    block = SwinBlock(heads=2, window=4, shifted=True, drop_path=0.0, dtype=jnp.float32)
    variables = jax.jit(block.init)(jax.random.key(0), x)
    table = jax.random.normal(jax.random.key(2), (7, 7, 2))
    variables["params"]["attention"]["relative_position_bias_table"] = table.reshape(49, 2)
    padded = jax.jit(block.apply)(variables, x)
    variables["params"]["attention"]["relative_position_bias_table"] = table[2:5, 2:5].reshape(9, 2)
    block = SwinBlock(heads=2, window=2, shifted=True, drop_path=0.0, dtype=jnp.float32)
    whole = jax.jit(block.apply)(variables, x)
    np.testing.assert_allclose(padded, whole, rtol=1e-5, atol=1e-5)


def test_merging_pads_odd_sides():
    x = jnp.ones((1, 5, 7, 4))
    y, _ = PatchMerging(jnp.float32).init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 3, 4, 8)


def test_shifted_windows_see_over_the_border():
    """A change in one corner of a 8x8 map reaches the next window only through shifted blocks."""

    def reached(shifted):
        block = SwinBlock(heads=1, window=4, shifted=shifted, drop_path=0.0, dtype=jnp.float32)
        x = jax.random.normal(jax.random.key(1), (1, 8, 8, 4))
        variables = jax.tree.map(lambda leaf: 8 * leaf, jax.jit(block.init)(jax.random.key(0), x))
        apply = jax.jit(block.apply)
        changed = apply(variables, x.at[0, 3, 3, 0].add(1.0)) != apply(variables, x)
        return np.argwhere(np.asarray(changed[0].any(-1))).tolist()

    assert reached(False) == [[i, j] for i in range(4) for j in range(4)]
    assert reached(True) == [[i, j] for i in range(2, 6) for j in range(2, 6)]


@pytest.mark.parametrize("size", [16, 48, 80])
def test_sizes_that_windows_cover(size):
    model = create_model(MODELS["swin_tiny"], num_classes=3)
    check(model.config, size)
    variables = model.init(jax.random.key(0), 16)  # no parameter depends on the image size
    logits = jax.jit(model.apply)(variables, jnp.ones((1, size, size, 3)))
    assert logits.shape == (1, 3)
    assert jnp.isfinite(logits).all()


def test_other_sizes_are_refused():
    with pytest.raises(ConfigError, match="multiple of 32 for window 8, is 250: try 256"):
        check(MODELS["swin_t"], 250)
    with pytest.raises(ConfigError, match=r"config\.model\.window: cannot be 5"):
        check({**MODELS["swin_t"], "window": 5}, 240)
