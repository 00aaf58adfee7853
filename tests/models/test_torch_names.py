"""Where the names of published weights end: modules of ours that no published network has."""

import jax
import numpy as np
import pytest

from wastejax.errors import UserError
from wastejax.models import create_model
from wastejax.models.weights.published import convert
from wastejax.models.weights.torch_names import torch_names

MIXER = ("stage2_block1", "mixer0", "Dense_0", "kernel")


def test_a_module_without_a_name_is_left_out():
    stem = ("stem", "conv", "kernel")
    assert torch_names("mobilevit", [stem, MIXER], {}) == {stem: "stem.conv.weight"}


def test_weights_in_the_names_of_a_package_do_not_fit_fused_blocks():
    model = create_model({"name": "efficientnetv2", "size": "tiny", "lowering": "direct"}, 3)
    shapes = jax.eval_shape(lambda key: model.init(key, 32), jax.random.key(0))
    tensors = {"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)}
    with pytest.raises(UserError, match=r"^does not fit efficientnetv2 tiny: missing .*fused"):
        convert(tensors, model.config, shapes)
