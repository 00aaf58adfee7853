"""EfficientNetV2's tables, and where the study's changes sit. test_golden.py has the numbers of whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from wastejax.errors import ConfigError
from wastejax.models import MODELS, check, create_model
from wastejax.models.efficientnetv2 import SIZES


def shapes(name, num_classes=30):
    model = create_model(MODELS[name] if isinstance(name, str) else name, num_classes)
    variables = jax.eval_shape(model.module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return {key: leaf.shape for key, leaf in flatten_dict(variables["params"], sep="/").items()}


@pytest.mark.parametrize(
    ("size", "stem", "features", "repeats", "head"),
    [  # timm's tf_efficientnetv2_b* and tf_efficientnet_lite*: widths to the nearest 8, repeats upwards
        ("b1", 32, (16, 32, 48, 96, 112, 192), (2, 3, 3, 4, 6, 9), 1280),
        ("b2", 32, (16, 32, 56, 104, 120, 208), (2, 3, 3, 4, 6, 10), 1408),
        ("b3", 40, (16, 40, 56, 112, 136, 232), (2, 3, 3, 5, 7, 12), 1536),
        ("lite1", 32, (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1), 1280),
        ("lite2", 32, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1), 1280),
    ],
)
def test_scaled_sizes(size, stem, features, repeats, head):
    scaled = SIZES[size]
    assert (scaled.stem, scaled.head) == (stem, head)
    assert tuple(stage.features for stage in scaled.stages) == features
    assert tuple(stage.repeats for stage in scaled.stages) == repeats


@pytest.mark.parametrize(("image_size", "side"), [(32, 1), (96, 3), (100, 4)])
def test_features_are_at_stride_32(image_size, side):
    model = create_model(MODELS["efficientnetv2_b0"], 30)
    variables = jax.eval_shape(model.module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    features = jax.eval_shape(model.features, variables, jnp.zeros((2, image_size, image_size, 3)))
    assert features.shape == (2, side, side, 1280)


def test_the_studys_form_has_attention_in_every_block():
    eca = [key for key, shape in shapes("efficientnetv2_s_eca").items() if key.endswith("attention/kernel")]
    assert len(eca) == sum(stage.repeats for stage in SIZES["s"].stages) == 40
    plain = shapes({"name": "efficientnetv2", "size": "s", "attention": "eca"})
    assert sum(key.endswith("attention/kernel") for key in plain) == 30  # only the MBConv blocks
    assert sum(np.prod(shape) for shape in plain.values()) == 16_515_980  # timm's, with EcaModule


def test_lite0_has_the_kernels_of_its_source_and_no_attention():
    params = shapes("efficientnet_lite0")
    kernels = {key.split("/")[0]: shape[0] for key, shape in params.items() if "depthwise/conv" in key}
    assert [kernels[f"stage{s}_block0"] for s in range(7)] == [3, 3, 5, 3, 5, 5, 3]
    assert not any("attention" in key for key in params)
    assert "stage0_block0/expand/conv/kernel" not in params
    assert create_model(MODELS["efficientnet_lite0"], 30).config["activation"] == "relu6"


def test_stochastic_depth_rises_to_just_below_its_rate():
    model = create_model({"name": "efficientnetv2", "size": "tiny", "drop_path": 0.8, "dropout": 0.0}, 3)
    images = jnp.ones((256, 32, 32, 3))
    variables = model.init(jax.random.key(0), 32)

    @jax.jit
    def last_residual_block(variables, rng):
        _, state = model.module.apply(
            variables, images, train=True, rngs={"dropout": rng}, mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name in ("stage4_block0", "stage4_block1"),
        )  # fmt: skip
        blocks = state["intermediates"]
        return blocks["stage4_block1"]["__call__"][0] - blocks["stage4_block0"]["__call__"][0]

    branch = np.asarray(last_residual_block(variables, jax.random.key(1)))
    dropped = (branch == 0).all((1, 2, 3)).mean()
    assert dropped == pytest.approx(
        0.8 * 7 / 8, abs=0.09
    )  # block 7 of 8; 3 standard deviations of 256 samples


def test_too_small_an_image_is_refused():
    with pytest.raises(ConfigError, match=r"image_size: must be >= 32, is 31"):
        check(MODELS["efficientnetv2_b0"], 31)
    check(MODELS["efficientnetv2_b0"], 33)
