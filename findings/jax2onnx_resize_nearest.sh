#!/bin/sh
# jax2onnx 0.17.1 with jax 0.10.2 and onnxruntime 1.32.0: jax.image.resize(method="nearest") becomes ONNX's Resize with
# nearest_mode="round_prefer_floor", but JAX takes the pixel that the middle of the new one lies in, which is
# round_prefer_ceil. Wherever a middle falls on the line between two pixels the file takes the one before it: at half
# and a quarter of the sides these are all pixels, at one and a half times the sides a third of the columns and rows. A
# mask at half its size is then taken from the pixels beside those of JAX, and of bars one pixel wide the file sees the
# gaps. Whole factors upwards are right, linear too, and what jax2onnx cannot convert (antialias=True) is an error.
# Cubic lacks exclude_outside=1, so that the edges differ. One would have guessed that of all methods the one that only
# copies pixels comes out exactly. Nothing is said while it converts, and the shapes are right. With these two
# attributes written into the file onnxruntime gives JAX's numbers.
# Seen, the columns that 16 are resized to at half the side: JAX 1, 3, 5, ..., 15, onnxruntime 0, 2, 4, ..., 14; bars of
# one pixel: JAX all 1, onnxruntime all 0. Cubic at twice the side: up to 7.4 of 255 off in the outer four rows and
# columns, and nothing within.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax2onnx==0.17.1 jax==0.10.2 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
JAX_PLATFORMS=cpu venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import jax
import jax2onnx
import numpy as np
import onnx
import onnxruntime

SIDE = 16


def resized(image, side, method, **mended):
    """Returns the image, of SIDE x SIDE, by JAX and by onnxruntime, the latter with some attributes mended."""

    def resize(images):
        return jax.image.resize(images, (1, side, side, 1), method, antialias=False)

    images = image.reshape(1, SIDE, SIDE, 1).astype(np.float32)
    model = jax2onnx.to_onnx(resize, [jax.ShapeDtypeStruct(images.shape, images.dtype)])
    (node,) = [node for node in model.graph.node if node.op_type == "Resize"]
    for name, value in mended.items():
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(resize(images))[0, :, :, 0], made[0, :, :, 0]


columns = np.tile(np.arange(SIDE), (SIDE, 1))
wrong = {}
for side in (8, 4, 5, 24, 32, 48):
    by_jax, by_file = (made[0].astype(int).tolist() for made in resized(columns, side, "nearest"))
    wrong[side] = sum(one != other for one, other in zip(by_jax, by_file, strict=True))
    print(f"nearest, {SIDE} columns to {side}: JAX {by_jax[:8]}, onnxruntime {by_file[:8]}, {wrong[side]} differ")
    by_jax, mended = resized(columns, side, "nearest", nearest_mode="round_prefer_ceil")
    assert np.array_equal(by_jax, mended), side
    if side == 8:
        assert by_file == list(range(0, SIDE, 2)) and by_jax[0].astype(int).tolist() == list(range(1, SIDE, 2))
by_jax, by_file = resized(columns % 2, 8, "nearest")
print(f"bars of one pixel at half the side: JAX {by_jax.mean()}, onnxruntime {by_file.mean()}")
assert by_jax.min() == 1 and by_file.max() == 0
assert wrong[8] == 8 and wrong[4] == 4 and wrong[24] == 8 and not wrong[32] and not wrong[48], wrong

noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE))
linear = np.abs(np.subtract(*resized(noise, 32, "linear"))).max()
cubic = np.abs(np.subtract(*resized(noise, 32, "cubic")))
mended = np.abs(np.subtract(*resized(noise, 32, "cubic", exclude_outside=1))).max()
inner = cubic[4:-4, 4:-4].max()
print(f"linear off by {linear:.4f}; cubic by {cubic.max():.1f}, within the edges {inner:.4f}, mended {mended:.4f}")
assert linear < 0.01 and cubic.max() > 1 and inner < 0.01 and mended < 0.01
try:
    jax2onnx.to_onnx(lambda x: jax.image.resize(x, (1, 8, 8, 1), "linear"), [(1, SIDE, SIDE, 1)])
    refused = False
except NotImplementedError:
    refused = True
assert refused
PYTHON
test "$(grep -ci 'nearest\|resize\|cubic' log)" = 0
echo "jax2onnx 0.17.1 takes other pixels than jax.image.resize with method nearest: at half the side all of them"
