"""A network as an ONNX file, for the runtimes that run files."""

from pathlib import Path
from typing import Any

from wastejax.benchmark.networks import Case, config_of


def export(case: Case, folder: Path) -> dict[str, str]:
    """Writes the network of a case: float32 [B, S, S, 3] -> logits, any number of images.

    Returns:
        {'onnx': the file}, or {'onnx_missing': why there is none}.
    """
    try:
        from jax2onnx import to_onnx
    except ImportError:
        return {"onnx_missing": "jax2onnx is not installed here, so there is no file to run"}
    import jax

    from wastejax.models import create_model
    from wastejax.models.cost import NUM_CLASSES

    # Real convolutions, which a runtime knows how to run fast, instead of their parts.
    model = create_model({**config_of(case.model), "lowering": "direct"}, NUM_CLASSES)
    variables = jax.device_get(model.init(jax.random.key(0), case.size))

    def network(images: Any) -> Any:
        return model.apply(variables, images)

    proto = to_onnx(network, [("B", case.size, case.size, 3)], return_mode="proto")
    path = folder / f"{case.model}_{case.size}.onnx"
    path.write_bytes(proto.SerializeToString())
    return {"onnx": str(path)}
