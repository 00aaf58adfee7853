"""The parts of a network in their order: the stem, the blocks, the head; and which of them can be frozen.

Every network names its top-level modules by what they are, so the names of its parameters tell its structure:
`stage2_block1` is a block; `stem`, `patch_embed` and `patch_norm` come before the blocks; `head` and `norm` after
them; `classifier` and `head_attention` start anew in fine-tuning.
"""

import re
from typing import Any, NamedTuple

import jax

from wastejax.errors import ConfigError

Params = dict[str, Any]

_BLOCK = re.compile(r"stage(\d+)_(?:block(\d+)|merge)")
_LAST = ("classifier", "head_attention")
_BEHIND = ("head", "norm")


class Part(NamedTuple):
    """One step of a network from its input to its logits.

    Attributes:
        modules: the keys of `params` that it consists of, for instance ('stage1_merge', 'stage1_block0').
        parameters: trainable parameters.
        freezable: whether `optim.frozen_blocks` can reach it: all but the last part, which fine-tuning starts anew.
    """

    modules: tuple[str, ...]
    parameters: int
    freezable: bool


def parts(params: Params) -> tuple[Part, ...]:
    """Returns the parts of a network in order; a part's index is its depth.

    Args:
        params: of `Model.init`, or their shapes.
    """
    names: dict[tuple[int, ...], list[str]] = {}
    for name in params:
        names.setdefault(_rank(name), []).append(name)
    ranks = sorted(names)
    return tuple(
        Part(
            tuple(sorted(names[rank], key=list(params).index)),
            sum(leaf.size for name in names[rank] for leaf in jax.tree.leaves(params[name])),
            rank != ranks[-1],
        )
        for rank in ranks
    )


def first_blocks(params: Params, count: int) -> frozenset[str]:
    """Returns the keys of `params` that hold the stem and the blocks after it, `count` parts in all.

    Raises:
        ConfigError: there are fewer before the classifier.
    """
    found = parts(params)
    most = sum(part.freezable for part in found)
    if count > most:
        raise ConfigError("config.optim.frozen_blocks", f"must be <= {most} for this network, is {count}")
    return frozenset(name for part in found[:count] for name in part.modules)


def layer_index(params: Params) -> Params:
    """Returns the depth of each parameter, for learning rates that fall from the head to the stem.

    Returns:
        A tree like `params` of ints: 0 for the stem, then one more for every block, and the highest for what starts
        anew in fine-tuning, the classifier and the attention before it.
    """
    depths = {name: depth for depth, part in enumerate(parts(params)) for name in part.modules}
    return {name: jax.tree.map(lambda _, depth=depths[name]: depth, tree) for name, tree in params.items()}


def _rank(name: str) -> tuple[int, ...]:
    """Returns what parts are sorted by; modules of one part have the same."""
    if name in _LAST:
        return (3,)
    if block := _BLOCK.fullmatch(name):
        return 1, int(block[1]), int(block[2] or 0)
    return (2,) if name in _BEHIND else (0,)
