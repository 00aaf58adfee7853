"""What every network owes: its size, and that it can be trained and asked."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from wastejax.config import family_keys
from wastejax.errors import ConfigError
from wastejax.models import FAMILIES, MODELS, check, create_model

FAST = {"xla_backend_optimization_level": 0}  # half the compile time
jit = partial(jax.jit, compiler_options=FAST)

# Trainable parameters at 30 classes: timm's, and the study's where it reports them (its ECA and inverted-residual
# networks). The counts of other variants are our own, here to be noticed when they change.
PARAMETERS = {
    "efficientnetv2_b0": 5_897_134,
    "efficientnetv2_b1": 6_898_482,
    "efficientnetv2_b2": 8_729_356,
    "efficientnetv2_b3": 12_867_516,
    "efficientnetv2_s": 20_215_918,
    "efficientnetv2_m": 52_896_786,
    "efficientnetv2_tiny": 235_998,
    "efficientnetv2_b0_eca": 4_852_291,
    "efficientnetv2_s_eca": 16_516_024,
    "efficientnetv2_tiny_eca": 209_134,
    "efficientnetv2_b0_glu": 3_784_670,
    "efficientnetv2_s_glu": 12_784_374,
    "efficientnetv2_tiny_glu": 179_918,
    "efficientnet_lite0": 3_409_438,
    "efficientnet_lite1": 4_174_110,
    "efficientnet_lite2": 4_849_502,
    "mobilevit_xxs": 960_654,
    "mobilevit_xs": 1_944_398,
    "mobilevit_s": 4_956_862,
    "mobilevit_tiny": 414_926,
    "mobilevit_xxs_ir": 726_926,
    "mobilevit_xs_ir": 1_409_486,
    "mobilevit_s_ir": 3_538_990,
    "mobilevit_tiny_ir": 351_310,
    "mobilevit_xxs_conv5": 965_838,
    "mobilevit_xs_conv5": 1_950_878,
    "mobilevit_s_conv5": 4_967_230,
    "mobilevit_tiny_conv5": 418_814,
    "pyramidnet_110_a48": 1_774_006,
    "pyramidnet_110_a84": 3_906_466,
    "pyramidnet_110_a270": 28_491_217,
    "pyramidnet_164_a270": 27_238_921,
    "pyramidnet_272_a200": 26_228_142,
    "pyramidnet_18_a48": 1_197_790,
    "pyramidnet_101_a360": 40_808_980,
    "pyramidnet_tiny": 37_615,
    "swin_t": 27_550_152,
    "swin_t_w7": 27_542_424,
    "swin_tiny": 78_876,
}

SHALLOW = {"depths": (1, 1, 1)}  # of MobileViT's mixers: compiling is what these tests wait for

TINY = {
    **{
        name: {**config, **(SHALLOW if config["name"] == "mobilevit" else {})}
        for name, config in MODELS.items()
        if "_tiny" in name
    },
    "cbam": {"name": "efficientnetv2", "size": "tiny", "head_attention": "cbam", "activation": "hard_swish"},
    "relu6": {"name": "efficientnetv2", "size": "tiny", "attention": "none", "activation": "relu6"},
    "dense_5x5": {
        **{"name": "mobilevit", "size": "tiny", "local_kernel": "replace_5x5", "local_depthwise": False},
        **SHALLOW,
    },
}

# What is asked of one network of a family alone: for the others it would only be compiled once more.
ONE_OF_EACH = ("efficientnetv2_tiny", "mobilevit_tiny", "pyramidnet_tiny", "swin_tiny")

# What differs between versions of jax shows in these and in networks of inverted residuals.
NETWORKS = [
    name if name in (*ONE_OF_EACH, "mobilevit_tiny_ir") else pytest.param(name, marks=pytest.mark.one_stack)
    for name in TINY
]

CLASSES, SIZE, BATCH = 5, 64, 4


def variables_of(config, num_classes=30):
    module = create_model(config, num_classes).module
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))


def test_every_model_has_a_golden_count():
    assert MODELS.keys() == PARAMETERS.keys()


def marked(name):
    # Tracing the deep PyramidNets takes a minute; test_pyramidnet.py has their published counts.
    deep = (name.startswith("pyramidnet_1") and name != "pyramidnet_18_a48") or name == "pyramidnet_272_a200"
    return pytest.param(name, marks=pytest.mark.slow) if deep else name


@pytest.mark.parametrize("name", list(map(marked, PARAMETERS)))
def test_parameters(name):
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(variables_of(MODELS[name])["params"])) == PARAMETERS[name]
    )


def photos(batch=BATCH, size=SIZE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, size, size, 3)), jnp.float32)


@cache
def made(name):
    """Returns a tiny network without chance in it, its variables, and its compiled training pass."""
    model = create_model({**TINY[name], "dropout": 0.0, "drop_path": 0.0}, CLASSES)

    @jit
    def gradients(variables, images):
        def loss(params):
            logits, stats = model.apply({**variables, "params": params}, images, train=True)
            labels = jnp.arange(len(images)) % CLASSES
            return -jax.nn.log_softmax(logits)[jnp.arange(len(images)), labels].mean(), (logits, stats)

        (_, (logits, stats)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return logits, stats, grads

    return model, model.init(jax.random.key(0), SIZE), gradients, jit(model.apply)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns_and_one_compilation_serves(name):
    model, variables, gradients, *_ = made(name)
    logits, stats, grads = gradients(variables, photos())
    assert logits.shape == (BATCH, CLASSES)
    assert logits.dtype == jnp.float32
    for key, grad in flatten_dict(grads, sep="/").items():
        assert jnp.isfinite(grad).all(), key
        assert jnp.abs(grad).max() > 0, key
    old = flatten_dict(variables["batch_stats"], sep="/")
    new = flatten_dict(stats, sep="/")
    assert {key: leaf.shape for key, leaf in new.items()} == {key: leaf.shape for key, leaf in old.items()}
    assert all((new[key] != old[key]).any() for key in new)
    gradients(model.init(jax.random.key(1), SIZE), photos(seed=1))
    assert gradients._cache_size() == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_is_a_function_of_each_image_alone(name):
    model, variables, _, apply = made(name)
    images = photos()
    logits = apply(variables, images)
    assert logits.shape == (BATCH, CLASSES)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    # Among others an image gets the same answer.
    among = apply(variables, photos(seed=1).at[2].set(images[1]))
    np.testing.assert_allclose(among[2], logits[1], rtol=1e-3, atol=1e-4)
    if name not in ONE_OF_EACH:
        return
    # By itself too, and the classifier averages the features over positions.
    np.testing.assert_allclose(apply(variables, images[1:2]), logits[1:2], rtol=1e-3, atol=1e-4)
    head = variables["params"]["classifier"]
    by_hand = jit(model.features)(variables, images).mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_uses_the_batch_and_evaluation_the_running_statistics(name):
    _, variables, gradients, apply = made(name)
    images = photos()
    trained, stats, _ = gradients(variables, images)
    if not stats:  # without batch norm the two are one
        np.testing.assert_allclose(trained, apply(variables, images), rtol=1e-3, atol=1e-4)
        return
    # The other images of the batch change an image's training logits.
    changed, *_ = gradients(variables, images.at[1:].set(photos(seed=2)[1:]))
    assert jnp.abs(changed[0] - trained[0]).max() > 1e-3
    assert jnp.abs(apply(variables, images) - trained).max() > 1e-3


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "mobilevit_tiny_ir"])
def test_finite_at_other_sizes(name):
    model, variables, _, apply = made(name)
    # Where windows or patches do not bind it, a size that leaves odd feature maps behind.
    size = 128 if "swin" in name or model.config.get("mixer") == "attention" else 100
    check(model.config, size)
    logits = apply(variables, photos(2, size))
    assert logits.shape == (2, CLASSES)
    assert jnp.isfinite(logits).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_computes_the_same_network(name):
    model, variables, _, apply = made(name)
    half = create_model({**model.config, "dtype": "bfloat16"}, CLASSES)
    images = photos()
    logits = jit(half.apply)(variables, images)
    exact = apply(variables, images)
    assert logits.dtype == jnp.float32
    assert jnp.abs(logits - exact).max() < 0.1 * jnp.abs(exact).max()
    features = jax.eval_shape(half.features, variables, images)
    assert features.dtype == jnp.bfloat16
    _, stats = jax.eval_shape(partial(half.apply, train=True), variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} <= {jnp.dtype("float32")}


def test_bfloat16_trains():
    model, variables, gradients, *_ = made("relu6")
    half = create_model({**model.config, "dtype": "bfloat16"}, CLASSES)

    def loss(params):
        logits, _ = half.apply({**variables, "params": params}, photos(), train=True)
        return -jax.nn.log_softmax(logits)[jnp.arange(BATCH), jnp.arange(BATCH)].mean()

    grads = jit(jax.grad(loss))(variables["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    exact = gradients(variables, photos())[2]["classifier"]["kernel"]
    error = jnp.abs(grads["classifier"]["kernel"] - exact).max() / jnp.abs(exact).max()
    assert error < 0.1


def test_training_on_a_batch_of_one():
    model, variables, *_ = made("efficientnetv2_tiny")
    logits, stats = jit(partial(model.apply, train=True))(variables, photos(1))
    assert jnp.isfinite(logits).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(stats))


def test_dropout_needs_a_key_and_changes_with_it():
    model = create_model({**MODELS["efficientnetv2_tiny"], "dropout": 0.5}, CLASSES)
    variables = made("efficientnetv2_tiny")[1]
    apply = jit(partial(model.apply, train=True))
    one, two, again = (apply(variables, photos(), rng=jax.random.key(seed))[0] for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()


def test_init_is_a_function_of_the_key_and_draws_what_the_modules_declare():
    model, variables, *_ = made("pyramidnet_tiny")
    again = model.init(jax.random.key(0), SIZE)
    other = model.init(jax.random.key(1), 128)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), variables, again))
    declared = jit(model.module.init)(jax.random.key(0), photos(1))
    assert jax.tree.map(jnp.shape, declared) == jax.tree.map(jnp.shape, variables)
    theirs = flatten_dict(declared, sep="/")
    for key, ours in flatten_dict(other, sep="/").items():
        assert ours.dtype == jnp.float32, key
        if key.endswith("kernel"):
            assert float(ours.std()) == pytest.approx(float(theirs[key].std()), rel=4 / ours.size**0.5), key
        else:
            np.testing.assert_array_equal(ours, theirs[key])  # scales, biases, statistics
    # Inside another program's trace there is nothing to draw on the host.
    assert jax.tree.map(
        jnp.shape, jax.eval_shape(partial(model.init, image_size=SIZE), jax.random.key(0))
    ) == (jax.tree.map(jnp.shape, variables))


def test_both_lowerings_are_one_network():
    model, variables, gradients, *_ = made("efficientnetv2_tiny")
    direct = create_model({**model.config, "lowering": "direct"}, CLASSES)

    def loss(params):
        logits, _ = direct.apply({**variables, "params": params}, photos(), train=True)
        return -jax.nn.log_softmax(logits)[jnp.arange(BATCH), jnp.arange(BATCH)].mean()

    ours = flatten_dict(gradients(variables, photos())[2], sep="/")
    for key, grad in flatten_dict(jit(jax.grad(loss))(variables["params"]), sep="/").items():
        assert jnp.abs(ours[key] - grad).max() <= 1e-3 * jnp.abs(grad).max() + 1e-6, key


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"name": "mobilenet", "size": "s"},
            r"model\.name: unknown model 'mobilenet'; did you mean 'mobilevit'",
        ),
        (
            {"name": "mobilevit", "size": "xs2"},
            r"model\.size: mobilevit has no size 'xs2'; did you mean 'xs'",
        ),
        ({"name": "mobilevit"}, r"model\.size: mobilevit has no size 'None'; choices: s, tiny, xs, xxs"),
        ({"name": "mobilevit", "size": "s", "mixr": 1}, r"model\.mixr: .* did you mean 'mixer'"),
        (
            {"name": "mobilevit", "size": "s", "mixer": "atention"},
            r"model\.mixer: .* did you mean 'attention'",
        ),
        ({"name": "efficientnetv2", "size": "s", "dropout": 1.0}, r"model\.dropout: .* < 1, is 1\.0"),
        ({"name": "efficientnetv2", "size": "s", "drop_path": "a"}, r"model\.drop_path: .*, is 'a'"),
        ({"name": "efficientnetv2", "size": "s", "dtype": "float16"}, r"model\.dtype: cannot be 'float16'"),
    ],
)
def test_wrong_configs_name_the_key_and_a_way_out(config, message):
    with pytest.raises(ConfigError, match=message):
        check(config, 256)


def test_keys_left_out_or_none_take_their_defaults():
    given = {"name": "efficientnetv2", "size": "m", "dropout": None, "activation": "relu6"}
    config = create_model(given, 30).config
    assert config["dropout"] == 0.3  # of the size
    assert config["attention"] == "se"
    assert config["activation"] == "relu6"
    assert create_model(MODELS["efficientnet_lite0"], 30).config["attention"] == "none"


def test_every_family_offers_what_the_lists_need():
    for name, family in FAMILIES.items():
        for size in family.sizes.values():
            assert size.image_size >= 32, name
            for key, known in family_keys(name).items():
                assert known.default is not None or hasattr(size, key), (name, key)
