"""A network as the ONNX file that `export` writes, for the runtimes that run files."""

import importlib.util
from pathlib import Path

from wastejax.benchmark.networks import Case, config_of


def export(case: Case, folder: Path) -> dict[str, str]:
    """Writes the network of a case: normalized float32 [B, S, S, 3] -> probabilities, any number of images.

    Returns:
        {'onnx': the file}, or {'onnx_missing': why there is none}.
    """
    for package in ("jax2onnx", "onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            return {"onnx_missing": f"{package} is not installed here, so there is no file to run"}
    import jax

    from wastejax.bundle import Bundle
    from wastejax.data.transforms import Preprocessing
    from wastejax.deployment.export import write_export
    from wastejax.models import create_model
    from wastejax.models.cost import NUM_CLASSES

    config = config_of(case.model)
    variables = jax.device_get(create_model(config, NUM_CLASSES).init(jax.random.key(0), case.size))
    classes = tuple(f"class_{i}" for i in range(NUM_CLASSES))
    bundle = Bundle(variables, {"model": config}, classes, Preprocessing(case.size))
    path = folder / f"{case.model}_{case.size}.onnx"
    write_export(bundle, path, "float32")
    return {"onnx": str(path)}
