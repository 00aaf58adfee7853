"""ONNX files whose kernels take little room and give the same numbers: what a browser downloads."""

from pathlib import Path
from typing import Any

import numpy as np

from wastejax.files import write_bytes

LEVELS = 127  # of an 8-bit kernel, on either side of zero
_SLACK = 1e-3  # of a level; float32's rounding of scales and folded norms stays far below


def pack(source: Path, path: Path) -> None:
    """Writes an ONNX file with each kernel in the smallest of three forms that keeps what it says.

    Kernels that stand on a grid of 8 bits per output channel, as those of a bundle that holds 8 bits do, are stored
    as the integers and their scales: exact to float32's rounding. Others are stored in float16. All are made float32
    again by operators with constant inputs, which a runtime computes once when it loads the file.

    Args:
        source: a file of float32 kernels; others in it stay as they are.
        path: the new file; may be `source`.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    nodes = []
    axes = _channel_axes(model.graph)
    fresh = []
    for tensor in list(model.graph.initializer):
        # Vectors weigh nothing, also where they have axes of length 1 to be broadcast along.
        if tensor.data_type != onnx.TensorProto.FLOAT or sum(length > 1 for length in tensor.dims) < 2:
            continue
        kernel = numpy_helper.to_array(tensor)
        name = tensor.name
        grid = on_grid(kernel, axes[name]) if name in axes else None
        if grid is None:
            small = {"half": kernel.astype(np.float16)}
            nodes.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=tensor.data_type))
        else:
            small = {"levels": grid[0], "scale": grid[1]}
            cast = onnx.helper.make_node("Cast", [f"{name}_levels"], [f"{name}_cast"], to=tensor.data_type)
            nodes += [cast, onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name])]
        fresh += [numpy_helper.from_array(array, f"{name}_{kind}") for kind, array in small.items()]
        model.graph.initializer.remove(tensor)
    model.graph.initializer.extend(fresh)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def on_grid(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the 8-bit levels of a float32 kernel and the scale of each slice along `axis`, None where it has none.

    The scale keeps the kernel's number of axes, the others being 1. A slice's largest value is the last level.
    """
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    scale = np.abs(kernel).max(others, keepdims=True) / LEVELS
    levels = kernel / np.where(scale > 0, scale, 1)
    whole = np.round(levels)
    if np.abs(levels - whole).max() > _SLACK:
        return None
    return whole.astype(np.int8), scale.astype(np.float32)


def _channel_axes(graph: Any) -> dict[str, int]:
    """The axis of the output channels of each kernel that a convolution or a dot takes."""
    axes = {}
    for node in graph.node:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "Gemm":
            across = next((a.i for a in node.attribute if a.name == "transB"), 0)
            axes[node.input[1]] = 0 if across else 1
        elif node.op_type == "MatMul":
            axes[node.input[1]] = 1
    return axes
