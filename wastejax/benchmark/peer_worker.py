"""A peer in its own process: times a network in PyTorch, ONNX Runtime or OpenVINO when told to.

It runs under whatever Python has the peer, so it is a script and imports nothing of this project. The first
argument is the case as JSON. It answers on its standard output, one JSON line each: first {"forms", "about",
"without": {form: why}} or {"missing": why}; then for every request [form, calls] that it reads, until there are no
more, {"seconds": one of each call, "peak_mib": the most memory of the process during them, null where unknown}.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

EFFICIENTNETS = [f"efficientnetv2_{size}" for size in ("b0", "b1", "b2", "b3", "s", "m")]
EFFICIENTNETS += [f"efficientnet_lite{size}" for size in range(3)]
# Networks that timm has too. EfficientNetV2 and Lite take PyTorch's own padding there: TensorFlow's costs it time.
TIMM: dict = {
    **{f"mobilevit_{size}": (f"mobilevit_{size}", {}) for size in ("xxs", "xs", "s")},
    **{name: (f"tf_{name}", {"pad_type": ""}) for name in EFFICIENTNETS},
    "swin_t": ("swin_tiny_patch4_window7_224", {"window_size": 8}),
    "swin_t_w7": ("swin_tiny_patch4_window7_224", {}),
}


COMPILED = ", compiled"  # after the name of a memory format


class MissingError(Exception):
    """Why this peer cannot run the case."""


def torch_forms(case):
    """Returns calls for both memory formats of PyTorch in eager mode and for `torch.compile`, and what ran them."""
    try:
        import timm
        import torch
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed") from None
    if case["model"] not in TIMM:
        raise MissingError("timm has no such network")
    name, options = TIMM[case["model"]]
    if case["model"].startswith("swin"):
        options = {**options, "img_size": case["size"]}
    torch.set_num_threads(case["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # As jax does by default: float32 products on tensor cores where the card has them.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    make = train_call if case["mode"] == "train" else infer_call

    def call_of(form):
        layout = form.removesuffix(COMPILED)
        memory = getattr(torch, f"{layout}_format" if layout == "contiguous" else layout)
        model: Any = timm.create_model(name, num_classes=case["num_classes"], **options)
        model = model.to(device, getattr(torch, case["dtype"]), memory_format=memory)
        images = torch.randn(case["batch"], 3, case["size"], case["size"])
        images = images.to(device, getattr(torch, case["dtype"])).to(memory_format=memory)
        model = model if form == layout else torch.compile(model)
        return make(torch, model, images, case["num_classes"])

    about = {"torch": torch.__version__, "timm": timm.__version__, "network": name}
    about["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    if "form" in case:  # that one alone, whose memory is wanted
        return {case["form"]: call_of(case["form"])}, about, {}
    calls = {form: call_of(form) for form in ("contiguous", "channels_last")}
    faster = min(calls, key=lambda form: min(seconds_of(calls[form], 3)[1:]))
    compiled = faster + COMPILED
    without = {}
    try:
        needs_compiler(device)
        call = call_of(compiled)
        (about["compile_s"],) = seconds_of(call, 1)
        calls[compiled] = call
    except Exception as error:  # of a compiler that is not our concern: the others are timed all the same
        without["compiled"] = f"torch.compile: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    return calls, about, without


def needs_compiler(device):
    """Raises MissingError where `torch.compile` cannot work for want of a C++ compiler."""
    name = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(name) is None:
        raise MissingError(f"needs a C++ compiler, and there is no {name} (CXX names another)")


def seconds_of(call, count):
    """Returns the seconds that each of so many calls took; `call` must return only when all is done."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def forget_peak():
    """Has the most memory counted anew from here on, on processor and card; nothing where that cannot be had."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux: the peak of the resident set becomes its size now
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    """Returns the most memory since `forget_peak`: of a card, or the resident set; None where unknown."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def infer_call(torch, model, images, _):
    """Returns a call of the forward pass that waits for its end."""
    model.eval()

    def call():
        with torch.inference_mode():
            model(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return call


def train_call(torch, model, images, num_classes):
    """Returns a call of one AdamW step that waits for its end."""
    model.train()
    labels = torch.randint(num_classes, (len(images),), device=images.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def call():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images).float(), labels).backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

    return call


def torchvision_forms(case):
    """Returns passes over a folder of images by torchvision's DataLoader: cropped, flipped, as bytes."""
    try:
        import torch
        from torchvision import datasets, transforms
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed") from None
    crop = transforms.RandomResizedCrop(
        case["size"], (0.35, 1), interpolation=transforms.InterpolationMode.BICUBIC
    )
    augment = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()])
    images = datasets.ImageFolder(case["folder"], augment)

    def passes(workers):
        loader = torch.utils.data.DataLoader(
            images,
            case["batch"],
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )

        def call():
            for _ in loader:
                pass

        return call

    forms = {f"{workers} processes": passes(workers) for workers in (0, case["threads"])}
    return forms, {"torch": torch.__version__, "device": "cpu"}, {}


def inference_only(case):
    """Raises MissingError for what a runtime of exported networks cannot do."""
    if case["mode"] != "infer" or case["dtype"] != "float32":
        raise MissingError("measured for float32 inference only")
    if "onnx_missing" in case:
        raise MissingError(case["onnx_missing"])


def random_images(case, layout):
    """Returns float32 images for a file whose input is laid out like this."""
    import numpy as np

    shape = (case["batch"], case["size"], case["size"], 3)
    if layout[1] == 3:
        shape = (case["batch"], 3, case["size"], case["size"])
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def onnx_forms(case):
    """Returns the call of ONNX Runtime."""
    inference_only(case)
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    session = onnxruntime.InferenceSession(case["onnx"], options, onnxruntime.get_available_providers())
    entry = session.get_inputs()[0]
    feed = {entry.name: random_images(case, entry.shape)}
    device = "gpu" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
    about = {"onnxruntime": onnxruntime.__version__, "device": device}
    return {"": lambda: session.run(None, feed)}, about, {}


def openvino_forms(case):
    """Returns the call of OpenVINO on the CPU."""
    inference_only(case)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # a benchmark reports to nobody
    try:
        import openvino
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed") from None
    core = openvino.Core()
    model = core.read_model(case["onnx"])
    layout = [d.get_length() if d.is_static else None for d in model.inputs[0].partial_shape]
    images = random_images(case, layout)
    model.reshape(images.shape)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case["threads"],
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", options)
    return {"": lambda: compiled(images)}, {"openvino": openvino.__version__, "device": "cpu"}, {}


FORMS = {
    "timm": torch_forms,
    "torchvision": torchvision_forms,
    "onnx": onnx_forms,
    "openvino": openvino_forms,
}


def serve(make, peak=peak_mib):
    """Answers what is asked of one case.

    `make` returns of it calls by form, what ran them, and which forms there are not, and why.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    case = json.loads(sys.argv[1])

    def answer(content):
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        calls, about, without = make(case)
    except MissingError as missing:
        answer({"missing": str(missing)})
        return
    answer({"forms": list(calls), "about": about, "without": without})
    for line in sys.stdin:
        form, count = json.loads(line)
        forget_peak()
        answer({"seconds": seconds_of(calls[form], count), "peak_mib": peak()})


if __name__ == "__main__":
    serve(lambda case: FORMS[case["runtime"]](case))
