"""Rewrites of an ONNX graph that give the same numbers from fewer or from native operators.

jax2onnx computes every shape anew for an open batch size, broadcasts before it adds, and transposes around each
convolution; runtimes find their fast kernels only where that is gone.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Where"})
_RESHAPING = ("Squeeze", "Unsqueeze", "Flatten")


def shapes_of(graph: Any) -> dict[str, list[int | str]]:
    """Returns what the graph says of the shapes of its values: lengths, or names of open ones."""
    described = [*graph.value_info, *graph.input, *graph.output]
    shapes = {
        value.name: [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in axes]
        for value in described
        if (axes := value.type.tensor_type.shape.dim) or value.type.tensor_type.HasField("shape")
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def set_axes(graph: Any) -> None:
    """Gives the axes of reductions as attributes, as up to opset 17; of jax2onnx some come as inputs regardless."""
    from onnx import helper

    arrays = _arrays(graph)
    for node in graph.node:
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
            axes = arrays[node.input.pop()]
            kept = [a for a in node.attribute if a.name == "keepdims"]
            refill(node.attribute, [*kept, helper.make_attribute("axes", axes.tolist())])


def pool_globally(graph: Any) -> None:
    """Makes global pools of means over all positions of [B, H, W, C]; the transposes before them cancel others."""
    from onnx import helper

    shapes = shapes_of(graph)
    for node in list(graph.node):
        shape = shapes.get(node.input[0], []) if node.op_type == "ReduceMean" else []
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if len(shape) != 4 or settings.get("axes") != [1, 2] or settings.get("keepdims", 1):
            continue
        result, place = node.output[0], list(graph.node).index(node)
        turned, pooled = f"{result}_turned", f"{result}_pooled"
        lengths = _constant(graph, f"{result}_shape", np.array([-1, shape[3]], np.int64))
        graph.node.remove(node)
        turn = helper.make_node("Transpose", [node.input[0]], [turned], f"{result}_turn", perm=[0, 3, 1, 2])
        pool = helper.make_node("GlobalAveragePool", [turned], [pooled], f"{result}_pool")
        flat = helper.make_node("Reshape", [pooled, lengths], [result], f"{result}_flat")
        for offset, new in enumerate((turn, pool, flat)):
            graph.node.insert(place + offset, new)


def fix_shapes(graph: Any) -> None:
    """Reshapes to constants, -1 for the one length that is open, and broadcasts only where that says something."""
    shapes = shapes_of(graph)
    initial = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] in initial:
            continue
        lengths = _fixed(shapes.get(node.output[0], ["?", "?"]))
        if lengths.count(-1) <= 1:
            node.input[1] = _constant(graph, f"{node.output[0]}_shape", np.array(lengths, np.int64))
    for node in graph.node:
        if node.op_type == "Slice" and node.input[2] not in initial:
            _fix_slice(graph, node, shapes)
    for node in [node for node in graph.node if node.op_type == "Expand"]:
        if _says_nothing(node, graph, shapes):
            _replace_uses(graph, node.output[0], node.input[0])
    prune(graph)


def _fix_slice(graph: Any, node: Any, shapes: dict[str, list[int | str]]) -> None:
    """Has a Slice name no axis that it leaves whole, such as that of the batch, whose end has to be computed."""
    arrays = _arrays(graph)
    before, after, starts = shapes[node.input[0]], shapes[node.output[0]], arrays.get(node.input[1])
    axes = arrays.get(node.input[3]) if len(node.input) > 3 else np.arange(len(before))
    steps = arrays.get(node.input[4]) if len(node.input) > 4 else np.ones(len(before), np.int64)
    if starts is None or axes is None or steps is None or (steps < 1).any():
        return
    cuts = []
    for axis, start, step in zip(axes.tolist(), starts.tolist(), steps.tolist(), strict=True):
        length = after[axis]
        if isinstance(length, int):
            cuts.append((axis, start, start + (length - 1) * step + 1, step))
        elif (length, start, step) != (before[axis], 0, 1):
            return
    values = np.array(cuts, np.int64).T
    for i, (row, name) in enumerate(zip((1, 2, 0, 3), ("starts", "ends", "axes", "steps"), strict=True), 1):
        constant = _constant(graph, f"{node.output[0]}_{name}", values[row])
        if i < len(node.input):
            node.input[i] = constant
        else:
            node.input.append(constant)


def _says_nothing(expand: Any, graph: Any, shapes: dict[str, list[int | str]]) -> bool:
    """Returns whether the result of an Expand would be broadcast to the same shape without it."""
    before, after = (shapes.get(name) for name in (expand.input[0], expand.output[0]))
    if before is not None and before == after:
        return True
    users = [node for node in graph.node if expand.output[0] in node.input]

    def broadcasts(node: Any) -> bool:
        others = [shapes.get(name) for name in node.input if name != expand.output[0]]
        return node.op_type in _ELEMENTWISE and shapes.get(node.output[0], []) in others

    return bool(users) and all(broadcasts(node) for node in users)


def cancel_transposes(graph: Any) -> None:
    """Takes the input of a transpose where another one undoes it, though its result has other users as well."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        first = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if first is None or first.op_type != "Transpose":
            continue
        there, back = (list(each.attribute[0].ints) for each in (first, node))
        if [there[axis] for axis in back] == list(range(len(there))):
            _replace_uses(graph, node.output[0], first.input[0])
    prune(graph)


def join_shapes(model: Any) -> Any:
    """Returns the model with Reshapes for transposes that move no number, and one for several in a row."""
    import onnx

    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    shapes = {name: _fixed(lengths) for name, lengths in shapes_of(graph).items()}
    for node in list(graph.node):
        kind, result = node.op_type, shapes.get(node.output[0])
        if kind == "Transpose" and _moves_nothing(node, shapes):
            _reshape(graph, node, shapes[node.output[0]])
        elif kind in _RESHAPING and result is not None and result.count(-1) == 1:
            _reshape(graph, node, result)
    _join_reshapes(graph)
    prune(graph)
    del graph.value_info[:]
    return model


def _moves_nothing(transpose: Any, shapes: dict[str, list[int]]) -> bool:
    """Returns whether only axes of length 1 change their places."""
    shape = shapes.get(transpose.input[0])
    if shape is None or shape.count(-1) > 1:
        return False
    order = [axis for axis in transpose.attribute[0].ints if shape[axis] != 1]
    return order == sorted(order)


def _reshape(graph: Any, node: Any, shape: list[int]) -> None:
    from onnx import helper

    inputs = [node.input[0], _constant(graph, f"{node.output[0]}_shape", np.array(shape, np.int64))]
    node.CopyFrom(helper.make_node("Reshape", inputs, list(node.output), name=node.name))


def _join_reshapes(graph: Any) -> None:
    """Makes one of two Reshapes in a row; the last one's shape holds no 0, which would refer to the first's."""
    makers = {name: node for node in graph.node for name in node.output}
    arrays = _arrays(graph)
    for node in graph.node:
        if node.op_type != "Reshape" or 0 in arrays.get(node.input[1], [0]):
            continue
        while (first := makers.get(node.input[0])) is not None and first.op_type == "Reshape":
            node.input[0] = first.input[0]


def prune(graph: Any) -> None:
    """Removes nodes and constants that no result needs."""
    makers = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    wanted = [value.name for value in graph.output]
    while wanted:
        name = wanted.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in makers:
            wanted += [*makers[name].input, *makers[name].output]
    refill(graph.node, [node for node in graph.node if node.output[0] in needed])
    refill(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])


def refill(field: Any, items: list[Any]) -> None:
    """Replaces what a repeated field of a protocol buffer holds."""
    del field[:]
    field.extend(items)


def _arrays(graph: Any) -> dict[str, np.ndarray]:
    """Returns the constants of a graph by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _fixed(shape: list[int | str]) -> list[int]:
    """Returns the lengths of a shape as a Reshape takes them, -1 where they are open."""
    return [length if isinstance(length, int) else -1 for length in shape]


def _constant(graph: Any, name: str, array: np.ndarray) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _replace_uses(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def move_biases(graph: Any) -> None:
    """Gives convolutions and dots the biases that are added to their results, where ONNX Runtime looks for none.

    Left as an addition, a bias costs a pass over the activations, and in 8 bits an error of its own.
    """
    arrays = _arrays(graph)
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    for add in [node for node in graph.node if node.op_type == "Add"]:
        biases = [arrays[name] for name in add.input if name in arrays]
        results = [makers[name] for name in add.input if name in makers]
        if len(biases) != 1 or len(results) != 1:
            continue
        last = dot = results[0]
        if last.op_type == "Transpose" and list(last.attribute[0].ints) == [0, 2, 3, 1]:
            dot = makers.get(last.input[0], last)
        wanted = "Gemm" if dot is last else "Conv"
        alone = uses[last.output[0]] == uses[dot.output[0]] == 1
        without = dot.op_type == wanted and len(dot.input) == 2
        kernel = arrays.get(dot.input[1]) if alone and without else None
        if kernel is None or not _is_bias(biases[0], kernel):
            continue
        dot.input.append(_constant(graph, f"{dot.output[0]}_bias", biases[0].reshape(-1)))
        last.output[0] = add.output[0]
        graph.node.remove(add)


def _is_bias(array: np.ndarray, kernel: np.ndarray) -> bool:
    """Returns whether an array that is added to a result has one value for each of its channels."""
    return array.ndim > 0 and 1 < array.size == array.shape[-1] and array.size in kernel.shape[:2]


def make_clips(graph: Any) -> None:
    """Makes one Clip of each Max and Min with constants, as in ReLU6.

    Runtimes compute it together with the convolution before it; in 8 bits, the range of what it leaves is enough.
    """
    import onnx

    scalars = {name: array for name, array in _arrays(graph).items() if array.size == 1}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    for upper in [node for node in graph.node if node.op_type == "Min"]:
        bounded = [name for name in upper.input if name in makers]
        if len(bounded) != 1 or uses[bounded[0]] != 1:
            continue
        lower = makers[bounded[0]]
        limits = [name for node in (lower, upper) for name in node.input if name in scalars]
        entry = [name for name in lower.input if name not in scalars]
        if lower.op_type != "Max" or len(limits) != 2 or len(entry) != 1:
            continue
        names = [f"{upper.output[0]}_{bound}" for bound in ("least", "most")]
        for name, limit in zip(names, limits, strict=True):
            _constant(graph, name, scalars[limit].reshape(()))
        upper.CopyFrom(onnx.helper.make_node("Clip", [*entry, *names], upper.output, name=upper.name))
        graph.node.remove(lower)


def make_hard_swishes(graph: Any) -> None:
    """Makes one HardSwish of each HardSigmoid times its own input; OpenVINO computes it within the convolution."""
    import onnx

    makers = {name: node for node in graph.node for name in node.output}
    for product in [node for node in graph.node if node.op_type == "Mul"]:
        for entry, name in (list(product.input), list(product.input)[::-1]):
            gate = makers.get(name)
            if gate is None or gate.op_type != "HardSigmoid" or gate.input[0] != entry:
                continue
            slope = {a.name: a.f for a in gate.attribute}
            if np.allclose([slope.get("alpha", 0.2), slope.get("beta", 0.5)], [1 / 6, 1 / 2], rtol=1e-6):
                product.CopyFrom(
                    onnx.helper.make_node("HardSwish", [entry], product.output, name=product.name)
                )
            break
    prune(graph)


def drop_zero_biases(graph: Any) -> None:
    """Takes away the scalar zero that jax2onnx adds to a dot; quantization takes it for one value per output."""
    zeros = {name for name, array in _arrays(graph).items() if not array.ndim and not array.any()}
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
            # Its factor, beta, may be 0 as well; the bias that takes its place wants the default, 1.
            for attribute in [a for a in node.attribute if a.name == "beta"]:
                node.attribute.remove(attribute)


def last_of(graph: Any, kinds: Collection[str]) -> list[str]:
    """Returns the names of the nodes of some kinds that no other of them lies behind."""
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    wanted = [value.name for value in graph.output]
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.op_type in kinds:
            found[node.name] = None
        elif node is not None:
            wanted += node.input
    return list(found)
