"""ONNX files whose kernels take less room and give the same numbers: what a browser downloads."""

from pathlib import Path
from typing import Any

import numpy as np

from wastejax.deployment.formats.onnx_graph import refill
from wastejax.files import write_bytes

LEVELS = 127  # of an 8-bit kernel, on either side of zero
_SLACK = 1e-3  # of a level; float32's rounding of scales and folded norms stays far below


def pack(source: Path, path: Path) -> None:
    """Writes an ONNX file whose kernels are stored in 8 bits where that loses nothing.

    Those that stand on a grid of 8 bits per output channel, as those of a bundle that holds 8 bits do, become
    integers and scales: exact to float32's rounding. Operators with constant inputs make them float32 again, which
    a runtime computes once when it loads the file.

    Args:
        source: a file of float32 kernels; all else in it stays as it is.
        path: the new file; may be `source`.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    axes = _channel_axes(model.graph)
    nodes = []
    for tensor in list(model.graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name not in axes:
            continue
        name = tensor.name
        grid = on_grid(numpy_helper.to_array(tensor), axes[name])
        if grid is None:
            continue
        for kind, array in zip(("levels", "scale"), grid, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_{kind}"))
        model.graph.initializer.remove(tensor)
        nodes += [
            onnx.helper.make_node("Cast", [f"{name}_levels"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]),
        ]
    refill(model.graph.node, [*nodes, *model.graph.node])
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def on_grid(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the 8-bit levels of a float32 kernel and the scale of each slice along `axis`, None if it has none.

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
