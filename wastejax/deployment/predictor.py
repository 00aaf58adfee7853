"""A trained model in any form it comes in: one `Predictor` for a run, a bundle or an exported file.

Imports nothing but NumPy and Pillow by itself; each form brings in its own runtime when it is loaded, so that an
ONNX file answers on a machine that has no jax.
"""

import importlib.util
import math
import sys
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import machine
from wastejax.bundle import default_bundle, load_bundle, parse_thresholds
from wastejax.data.formats.boxes import MULTILABEL
from wastejax.data.taxonomy import Taxonomy, load_taxonomy, parse_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.formats.about import ABOUT, damaged, parse_about
from wastejax.errors import MissingPackage, UserError, nearest
from wastejax.evaluation.metrics.multilabel import UNCALIBRATED, sigmoid

ANY_SIDE = "any_side"  # in that text, of a .tflite file with a class map: see `Predictor.any_side`
STRIDE = 32  # of every network: where it divides the sides of images, padding is the same whatever they are

DEFAULT_ACCURACY = 0.95  # of the answers that are not rejected, where nothing else is asked for


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready to answer.

    Attributes:
        path: where it came from.
        runtime: what computes it, e.g. 'jax' or 'onnxruntime'.
        classes: class names in the order of the probabilities.
        preprocessing: what its images go through.
        taxonomy: which bin a class belongs to, as far as there are rules.
        probabilities: uint8 [B, S, S, 3], RGB -> float32 [B, C], calibrated; every row sums to 1, but of a
            multi-label model.
        thresholds: see `Bundle.thresholds`.
        dense: uint8 [B, H, W, 3] -> logits at every position, float32 [B, h, w, C], see `Bundle.dense`; None where
            the model is an exported file without a class map.
        any_side: whether `dense` takes other H and W than S, multiples of `STRIDE`.
        class_thresholds: C probabilities from which on each class is named, of a multi-label model; None where an
            image shows one class.
    """

    path: Path
    runtime: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    taxonomy: Taxonomy
    probabilities: Callable[[np.ndarray], np.ndarray]
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    dense: Callable[[np.ndarray], Any] | None = None
    any_side: bool = False
    class_thresholds: tuple[float, ...] | None = None

    @property
    def multilabel(self) -> bool:
        """Whether an image shows any number of classes."""
        return self.class_thresholds is not None

    def naming(
        self, accuracy: float | None = None, reject_below: float | None = None
    ) -> tuple["Predictor", float]:
        """Returns the predictor to answer with, and the probability under which its answers are rejected.

        Args:
            accuracy: see `reject_below`; a multi-label model has none.
            reject_below: that probability, if not the model's own; of a multi-label model, the one from which on
                each of its classes is named.

        Raises:
            UserError: as of `reject_below`.
        """
        if self.class_thresholds is None:
            return self, self.reject_below(accuracy) if reject_below is None else reject_below
        if accuracy is not None:
            raise UserError(
                f"--accuracy={accuracy}: {self.path} is a multi-label model, which names each class from a "
                "probability of its own on; --reject-below=P sets one for all"
            )
        if reject_below is None:
            return self, 0.0
        return replace(self, class_thresholds=(reject_below,) * len(self.classes)), 0.0

    def needs_one_label(self, what: str) -> None:
        """Raises a UserError where images show any number of classes, for what only one makes sense of."""
        if self.multilabel:
            raise UserError(f"{what}: {self.path} is a multi-label model; this needs one class an image")

    def bin_of(self, label: str) -> str:
        """Returns the bin of a class, a key of `taxonomy.bins`; '' where there is no rule for it."""
        item = self.taxonomy.find(label)
        return item.bin if item else ""

    def reject_below(self, accuracy: float | None = None) -> float:
        """Returns the probability under which answers are better rejected, so that the others are right that often.

        Args:
            accuracy: a key of `thresholds`; None for 0.95, or for a plain probability of one half where the model
                was never calibrated.

        Returns:
            The threshold; infinity where none was high enough, so that every answer is rejected.

        Raises:
            UserError: no threshold was chosen for this accuracy.
        """
        if accuracy is None and not self.thresholds:
            return UNCALIBRATED
        wanted = str(float(DEFAULT_ACCURACY if accuracy is None else accuracy))
        if wanted not in self.thresholds:
            advice = (
                f"choices: {', '.join(self.thresholds)}"
                if self.thresholds
                else f"the model was never calibrated: `wastejax eval --model={self.path} --calibrate` does it"
            )
            raise UserError(f"--accuracy={wanted}: no threshold is known for it; {advice}")
        threshold = self.thresholds[wanted]
        return math.inf if threshold is None else threshold


def load_predictor(
    model: str | Path | None,
    runtime: str | None = None,
    taxonomy: str | Path | None = None,
    threads: int | None = None,
) -> Predictor:
    """Returns the model at a path; None is the one that comes along.

    Args:
        model: a run, a bundle, or a file that `export` wrote.
        runtime: what computes an .onnx file, a key of `ONNX_LOADERS`; None for the first.
        taxonomy: whose rules its answers follow, see `load_taxonomy`; None for those that the model was made with.
        threads: that an exported file computes with; None for the processor cores that this process may use.

    Raises:
        UserError: there is none, it is damaged or not ours, or its runtime is not installed.
    """
    if taxonomy is not None:
        rules = load_taxonomy(taxonomy, "--taxonomy")
        predictor = load_predictor(model, runtime, threads=threads)
        return replace(predictor, taxonomy=rules.only(predictor.classes))
    path = default_bundle() if model is None else Path(model)
    if threads is not None:
        if not path.is_file() or path.suffix == ".stablehlo":
            raise UserError(f"--threads={threads}: only for an .onnx or .tflite file; --model={path} is none")
        if threads < 1:
            raise UserError(f"--threads: must be >= 1, is {threads}")
    if runtime is not None:
        if not path.is_file() or path.suffix != ".onnx":
            raise UserError(f"--runtime={runtime}: only for an .onnx file; --model={path} is none")
        return ONNX_LOADERS[runtime](path, threads)
    if path.is_file():
        if path.suffix not in LOADERS:
            raise UserError(f"{path}: not a form of model that can be run{nearest(path.suffix, LOADERS)}")
        return LOADERS[path.suffix](path, threads)
    return load_jax(path)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns float32 probabilities of logits [B, C], computed in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def load_jax(path: Path) -> Predictor:
    """Returns a run or bundle, computed by jax as it was when it was evaluated."""
    if importlib.util.find_spec("jax") is None:
        advice = "; an exported file needs less: --model=FILE.onnx"
        raise MissingPackage(f"{path}, a run or bundle,", "jax", advice=advice)
    bundle = load_bundle(path)

    def probabilities(images: np.ndarray) -> np.ndarray:
        logits = np.asarray(bundle.logits(images))
        return sigmoid(logits) if bundle.multilabel else softmax(logits, bundle.temperature)

    return Predictor(
        bundle.path,
        "jax",
        bundle.classes,
        bundle.preprocessing,
        bundle.taxonomy,
        probabilities,
        bundle.thresholds,
        bundle.dense,
        True,
        named_from(bundle.class_thresholds, bundle.classes) if bundle.multilabel else None,
    )


def named_from(thresholds: Sequence[float], classes: Sequence[str]) -> tuple[float, ...]:
    """Returns the probability from which on each class is named, 0.5 where nobody chose any."""
    return tuple(thresholds) or (UNCALIBRATED,) * len(classes)


def load_onnx(path: Path, threads: int | None = None) -> Predictor:
    """Returns an .onnx file that `export` wrote, computed by ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackage(str(path), "onnxruntime", None) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.intra_op_num_threads = threads or machine.cores()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever the parser or the kernels make of a damaged file
        raise damaged(path, "ONNX", error) from None
    about = parse_about(path, session.get_modelmeta().custom_metadata_map.get(ABOUT))
    entry = session.get_inputs()[0]

    def compute(images: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {entry.name: images})

    results = len(session.get_outputs())
    return exported(path, "onnxruntime", about, compute, results, not isinstance(entry.shape[1], int))


def load_openvino(path: Path, threads: int | None = None) -> Predictor:
    """Returns an .onnx file that `export` wrote, computed by OpenVINO on the CPU in float32."""
    # OpenVINO reports over the network, from a forked process, that it reads an ONNX file; ours tells nobody.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise MissingPackage(str(path), "openvino", None) from None
    try:
        core = openvino.Core()
        model = core.read_model(path)
        # Left to itself it computes in bfloat16 where the processor can.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or machine.cores()}
        compiled = core.compile_model(model, "CPU", settings)
        shape = model.inputs[0].partial_shape
    except Exception as error:  # whatever the parser or the kernels make of a damaged file
        raise damaged(path, "ONNX", error) from None
    where = ["framework", ABOUT]  # where OpenVINO keeps the metadata of an ONNX file
    text = model.get_rt_info(where).astype(str) if model.has_rt_info(where) else None

    alone = threading.Lock()  # it has one request

    def compute(images: np.ndarray) -> list[np.ndarray]:
        with alone:
            return list(compiled(images).values())

    about, results = parse_about(path, text), len(model.outputs)
    return exported(path, "openvino", about, compute, results, shape[1].is_dynamic)


def load_litert(path: Path, threads: int | None = None) -> Predictor:
    """Returns a .tflite file that `export` wrote, computed by LiteRT on the CPU, one image after the other."""
    from wastejax.deployment.formats.stablehlo import ABOUT_FILE

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingPackage(str(path), "ai-edge-litert", None) from None
    try:
        with zipfile.ZipFile(path) as archive:  # at the end of the file
            about = parse_about(path, archive.read(ABOUT_FILE))
        interpreter = Interpreter(model_path=str(path), num_threads=threads or machine.cores())
        interpreter.allocate_tensors()
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, RuntimeError) as error:
        raise damaged(path, "LiteRT", error) from None
    (entry,), results = interpreter.get_input_details(), interpreter.get_output_details()
    results.sort(
        key=lambda result: len(result["shape"])
    )  # the class map has more axes than the probabilities

    alone = threading.Lock()

    def answer(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(image[None]))
        interpreter.invoke()
        return [interpreter.get_tensor(result["index"])[0] for result in results]

    def compute(images: np.ndarray) -> list[np.ndarray]:
        with alone:
            # A class map may have left it at other sides.
            if tuple(images.shape[1:]) != tuple(interpreter.get_input_details()[0]["shape"][1:]):
                interpreter.resize_tensor_input(entry["index"], (1, *images.shape[1:]))
                interpreter.allocate_tensors()
            return [np.stack(rows) for rows in zip(*map(answer, images), strict=True)]

    return exported(path, "litert", about, compute, len(results), bool(about.get(ANY_SIDE)))


def load_stablehlo(path: Path, threads: int | None = None) -> Predictor:
    """Returns a .stablehlo file that `export` wrote, computed by jax without the code of the network."""
    from wastejax.deployment.formats.stablehlo import ABOUT_FILE, PROGRAM, written_by

    try:
        import jax

        from wastejax.runtime.jit import jit
    except ImportError:
        raise MissingPackage(str(path), "jax") from None
    if importlib.util.find_spec("flatbuffers") is None:
        raise MissingPackage(str(path), "flatbuffers", "export")
    try:
        with zipfile.ZipFile(path) as archive:
            about, stored = parse_about(path, archive.read(ABOUT_FILE)), archive.read(PROGRAM)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise damaged(path, "StableHLO", error) from None

    def refused(error: Exception) -> UserError:
        reason = str(error).strip().partition("\n")[0]
        return UserError(f"{path}: jax {jax.__version__} cannot run it: {written_by(about)} ({reason})")

    try:
        program = jax.export.deserialize(bytearray(stored))
        call = jit(program.call)
    except Exception as error:  # another jax may fail at any part of what it does not know
        raise refused(error) from None

    def compute(images: np.ndarray) -> Sequence[Any]:
        try:
            found = call(images)
        except Exception as error:  # some of it is read only when it is compiled
            raise refused(error) from None
        return found if isinstance(found, Sequence) else [found]

    return exported(path, "stablehlo", about, compute, len(program.out_avals))


LOADERS: dict[str, Callable[[Path, int | None], Predictor]] = {
    ".onnx": load_onnx,
    ".stablehlo": load_stablehlo,
    ".tflite": load_litert,
}
ONNX_LOADERS: dict[str, Callable[[Path, int | None], Predictor]] = {
    "onnxruntime": load_onnx,
    "openvino": load_openvino,
}


def exported(
    path: Path,
    runtime: str,
    about: Mapping[str, Any],
    compute: Callable[[np.ndarray], Sequence[Any]],
    results: int = 1,
    any_side: bool = False,
) -> Predictor:
    """Returns the predictor of an exported file.

    Args:
        path: the file.
        runtime: what computes it.
        about: what the file says of itself.
        compute: its input, [B, H, W, 3] of the dtype that `about` names, -> probabilities [B, C] and, where there
            are two `results`, the logits at every position [B, h, w, C].
        results: how many the file has.
        any_side: whether it takes other images than squares of its own size.
    """
    preprocessing = Preprocessing.from_dict(about["preprocessing"])
    side = preprocessing.image_size

    def call(images: np.ndarray) -> Sequence[Any]:
        return compute(images if about["input"] == "uint8" else preprocessing.normalise(images))

    def probabilities(images: np.ndarray) -> np.ndarray:
        return np.asarray(call(images)[0], np.float32)

    def dense(images: np.ndarray) -> np.ndarray:
        if not any_side and images.shape[1:3] != (side, side):
            raise UserError(
                f"{path}: has class maps of images of {side} x {side} pixels alone, which a heat map takes, but"
                " finding several objects does not; name the run or bundle"
            )
        return np.asarray(call(images)[1], np.float32)

    taxonomy = parse_taxonomy(about["taxonomy"], str(path), "taxonomy")
    classes, several = tuple(about["classes"]), about.get("kind") == MULTILABEL
    return Predictor(
        path,
        runtime,
        classes,
        preprocessing,
        taxonomy,
        probabilities,
        parse_thresholds(about.get("thresholds", {})),
        dense if results > 1 else None,
        any_side,
        named_from(about.get("class_thresholds", ()), classes) if several else None,
    )
