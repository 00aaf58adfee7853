"""TensorFlow Lite Metadata: what MediaPipe Tasks and ML Kit read of an image classifier, without TensorFlow.

A flatbuffer by the schema of TensorFlow Lite Support (metadata_schema.fbs, identifier M001), stored under a name in
the model. The files that it refers to are in a zip at the end of the model's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wastejax.data.taxonomy import LANGUAGES
from wastejax.data.transforms import Preprocessing

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER = "1.0.0"  # the first version of the schema has all that is used here
# Of the schema's enumerations and unions.
_AXIS_LABELS, _FEATURE, _IMAGE, _RGB, _NORMALIZATION = 2, 1, 2, 1, 1

ENTRY, RESULT, CLASS_MAP = "images", "probabilities", "class_map"
LABELS_FILE = "labels.txt"  # where TensorFlow Lite's own tools look for class names
DISPLAY_FILE = "labels_{}.txt"  # of a language


class _Writer:
    """Tables of a flatbuffer, children before parents; fields by their number in the schema."""

    def __init__(self) -> None:
        import flatbuffers

        self.builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> int:
        return self.builder.CreateString(value)

    def offsets(self, items: Sequence[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return self.builder.EndVector()

    def floats(self, values: Sequence[float]) -> int:
        return self.builder.CreateNumpyVector(np.array(values, np.float32))

    def table(
        self,
        offsets: dict[int, int],
        octets: dict[int, int] | None = None,
        words: dict[int, int] | None = None,
    ) -> int:
        """Returns a table of fields that refer to others, of one byte, and of 32 bits."""
        octets, words = octets or {}, words or {}
        self.builder.StartObject(1 + max([*offsets, *octets, *words], default=-1))
        for field, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, word in words.items():
            self.builder.PrependUint32Slot(field, word, 0)
        for field, octet in octets.items():
            self.builder.PrependUint8Slot(field, octet, 0)
        return self.builder.EndObject()


def encode(about: Mapping[str, Any], class_map: bool) -> bytes:
    """Returns the metadata of an image classifier, from what its file says of itself.

    Args:
        about: see `about.describe`.
        class_map: it has a second output, logits at every position.
    """
    writer = _Writer()
    outputs = [_scores(writer)]
    if class_map:
        texts = {0: CLASS_MAP, 1: "Logits at every position, whose mean the probabilities are made of."}
        outputs.append(writer.table({field: writer.text(text) for field, text in texts.items()}))
    tensors = {2: writer.offsets([_image(writer, about)]), 3: writer.offsets(outputs)}
    subgraph = writer.table(tensors)
    fields = {
        0: writer.text("wastejax"),
        1: writer.text(f"Sorts images of waste into {len(about['classes'])} classes."),
        2: writer.text(about["versions"].get("exported_by", "")),
        3: writer.offsets([subgraph]),
        4: writer.text("wastejax"),
        7: writer.text(PARSER),
    }
    if about["licence"]:
        fields[5] = writer.text(about["licence"])
    writer.builder.Finish(writer.table(fields), IDENTIFIER)
    return bytes(writer.builder.Output())


def _image(writer: _Writer, about: Mapping[str, Any]) -> int:
    preprocessing = Preprocessing.from_dict(about["preprocessing"])
    # What is subtracted of the values 0..255 of each channel, and what they are divided by then.
    means, stds = [0.0] * 3, [1.0] * 3
    if about["input"] == "float32":
        means, stds = (
            [255 * value for value in values] for values in (preprocessing.mean, preprocessing.std)
        )
    size = writer.table({}, words=dict.fromkeys((0, 1), preprocessing.image_size))
    image = writer.table({1: size}, octets={0: _RGB})
    content = writer.table({1: image}, octets={0: _IMAGE})
    scaling = writer.table({0: writer.floats(means), 1: writer.floats(stds)})
    unit = writer.table({1: scaling}, octets={0: _NORMALIZATION})
    low, high = ([(value - mean) / std for mean, std in zip(means, stds, strict=True)] for value in (0, 255))
    stats = writer.table({0: writer.floats(high), 1: writer.floats(low)})
    return writer.table(
        {
            0: writer.text(ENTRY),
            1: writer.text("A square RGB image."),
            3: content,
            4: writer.offsets([unit]),
            5: stats,
        }
    )


def _scores(writer: _Writer) -> int:
    content = writer.table({1: writer.table({})}, octets={0: _FEATURE})
    # The names that programs know classes by, then those to display.
    files = [writer.table({0: writer.text(LABELS_FILE)}, octets={2: _AXIS_LABELS})]
    for code in LANGUAGES:
        texts = {0: writer.text(DISPLAY_FILE.format(code)), 3: writer.text(code)}
        files.append(writer.table(texts, octets={2: _AXIS_LABELS}))
    stats = writer.table({0: writer.floats([1.0]), 1: writer.floats([0.0])})
    return writer.table(
        {
            0: writer.text(RESULT),
            1: writer.text("The calibrated probability of each class."),
            3: content,
            5: stats,
            6: writer.offsets(files),
        }
    )
