"""What is committed about the speed of exported files: the page is made of the measurement."""

import json

from experiments import exported_files


def test_the_page_is_made_of_the_measurement():
    result = json.loads((exported_files.RESULTS / "exported_files.json").read_text())
    page = (exported_files.RESULTS / "exported_files.md").read_text()
    assert page == "\n".join(exported_files.report(result)) + "\n"
    assert result["commit"] and result["date"] and result["command"]


def test_every_operators_least_time_counts_once_and_the_first_run_not_at_all(tmp_path):
    import numpy as np
    import onnx

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", 3])] for name in ("x", "y")
    ]
    graph = onnx.helper.make_graph([node], "graph", *ends)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    times = exported_files.node_times({"m": tmp_path / "m.onnx"}, 2, runs=4)["m"]
    assert times.shape == (4, 1) and np.all(times >= 0)
