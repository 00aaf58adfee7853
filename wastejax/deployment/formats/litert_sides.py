"""Whether a LiteRT file computes the same function of images of other sides than it was written for."""

from typing import Any

import numpy as np

# What computes each position from those around it by numbers that are no function of the sides.
_EVERYWHERE = {"CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "MEAN", "CAST"}
_EVERYWHERE |= {"RELU", "RELU6", "LEAKY_RELU", "LOGISTIC", "HARD_SWISH", "GELU", "QUANTIZE", "DEQUANTIZE"}
# With constants of one value, or one for each channel.
_ELEMENTWISE = {"ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM"}


def takes_any_side(network: bytes) -> bool:
    """Returns whether images [1, H, W, 3] of any H and W that are multiples of 32 give what the network gives.

    Args:
        network: a LiteRT model of images [1, S, S, 3], S a multiple of 32.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(network)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    (graph,) = model.subgraphs
    for operator in graph.operators:
        kind = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
        # A tensor without data of its own is computed.
        stored = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is not None]
        computed = [tensor for tensor in tensors if model.buffers[tensor.buffer].data is None]
        if not _is_open(kind, [_shape(t) for t in stored], [_shape(t) for t in computed], operator):
            return False
    return True


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else np.asarray(tensor.shape).tolist()


def _is_open(kind: str, stored: list[list[int]], computed: list[list[int]], operator: Any) -> bool:
    """Returns whether an operator computes the same function whatever the sides of the images."""
    # [B, C] has no positions, as in all of a classifier: what leads there pools them, or is not open itself.
    if kind in _EVERYWHERE or (computed and all(len(shape) <= 2 for shape in computed)):
        return True
    if kind in _ELEMENTWISE:
        return all(sum(length != 1 for length in shape) <= 1 for shape in stored)
    if kind == "RESHAPE":
        return sum(length != 1 for length in computed[0]) <= 1
    if kind == "CONCATENATION":
        return operator.builtinOptions.axis in (3, -1) and all(len(shape) == 4 for shape in computed)
    return False
