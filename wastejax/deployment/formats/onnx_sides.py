"""Whether an ONNX file may take images of other sides than it was written for, and that it then says so."""

from typing import Any

from wastejax.deployment.formats.onnx_graph import shapes_of

# What computes each position from those around it by numbers that are no function of the sides.
_EVERYWHERE = {"Conv", "AveragePool", "MaxPool", "GlobalAveragePool", "Pad", "Transpose", "Cast"}
_EVERYWHERE |= {"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSwish", "Erf"}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div"}  # with constants of one value, or one for each channel
_RESHAPING = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}  # of what is one value for each channel
_JOINING = {"Concat", "Split"}  # along channels


def open_sides(model: Any) -> bool:
    """Leaves the sides of the images open where the network allows it; returns whether it does.

    Args:
        model: an ONNX model of images [B, S, S, 3]; of its results those with four axes get open sides too.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = shapes_of(graph)
    stored = {tensor.name for tensor in graph.initializer}
    if not all(_is_open(node, shapes, stored) for node in graph.node):
        return False
    (entry,) = model.graph.input
    results = [value for value in model.graph.output if len(value.type.tensor_type.shape.dim) == 4]
    for value, names in ((entry, ("H", "W")), *((result, ("h", "w")) for result in results)):
        for axis, name in zip((1, 2), names, strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return True


def _is_open(node: Any, shapes: dict[str, list[int | str]], stored: set[str]) -> bool:
    """Returns whether a node computes the same function whatever the sides of the images."""
    kind, shape = node.op_type, shapes.get(node.input[0]) if node.input else None
    computed = [shapes.get(name) for name in node.input if name not in stored]
    # [B, C] has no positions, as in all of a classifier: what leads there pools them, or is not open itself.
    if kind in _EVERYWHERE or (computed and all(sides is not None and len(sides) <= 2 for sides in computed)):
        return True
    if kind in _ELEMENTWISE:
        return all(_long(shapes[name]) <= 1 for name in node.input if name in stored)
    if kind in _RESHAPING:
        return shape is not None and _long(shape[1:]) <= 1
    if kind in _JOINING and shape is not None and len(shape) == 4:
        (axis,) = (attribute.i for attribute in node.attribute if attribute.name == "axis")
        return _is_channels(axis % 4, shape)
    return False


def _is_channels(axis: int, shape: list[int | str]) -> bool:
    """Returns whether this axis of [B, C, h, h] or [B, h, h, C] is that of channels, as far as lengths can tell."""
    sides = [length for i, length in enumerate(shape) if i not in (0, axis)]
    return axis in (1, 3) and sides[0] == sides[1] != shape[axis]


def _long(shape: list[int | str]) -> int:
    """Returns how many axes are longer than 1."""
    return sum(length != 1 for length in shape)
