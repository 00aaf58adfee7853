"""TensorFlow Lite Metadata: what MediaPipe Tasks and ML Kit read of an image classifier, without TensorFlow.

A flatbuffer by the schema of TensorFlow Lite Support (metadata_schema.fbs, identifier M001), stored under a name in
the model. The files that it refers to are in a zip at the end of the model's.
"""

from collections.abc import Sequence
from typing import NamedTuple

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER = "1.0.0"  # the first version of the schema has all that is used here
# Of the schema's enumerations and unions.
_AXIS_LABELS, _FEATURE, _IMAGE, _RGB, _NORMALIZATION = 2, 1, 2, 1, 1


class LabelFile(NamedTuple):
    """Names of the classes, a line each.

    Attributes:
        name: of the file in the zip.
        locale: of display names, such as 'ko'; '' for the names that programs know classes by.
    """

    name: str
    locale: str = ""


class Classifier(NamedTuple):
    """What metadata says of an image classifier.

    Attributes:
        name: of the model.
        description: in a sentence.
        version: of the model.
        licence: of its weights; '' where nobody said.
        side: of the square images that it takes, pixels.
        mean: what is subtracted of the values 0..255 of each channel.
        std: what they are divided by then.
        entry: the name of its input.
        result: the name of its output.
        labels: files of class names, that without a locale first.
        class_map: the name of a second output, logits at every position; '' where there is none.
    """

    name: str
    description: str
    version: str
    licence: str
    side: int
    mean: Sequence[float]
    std: Sequence[float]
    entry: str
    result: str
    labels: Sequence[LabelFile]
    class_map: str = ""


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
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return self.builder.EndVector()

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


def encode(about: Classifier) -> bytes:
    """Returns the metadata of an image classifier."""
    writer = _Writer()
    outputs = [_scores(writer, about)]
    if about.class_map:
        texts = {0: about.class_map, 1: "Logits at every position, whose mean the probabilities are made of."}
        outputs.append(writer.table({field: writer.text(text) for field, text in texts.items()}))
    tensors = {2: writer.offsets([_image(writer, about)]), 3: writer.offsets(outputs)}
    subgraph = writer.table(tensors)
    fields = {
        0: writer.text(about.name),
        1: writer.text(about.description),
        2: writer.text(about.version),
        3: writer.offsets([subgraph]),
        4: writer.text("wastejax"),
        7: writer.text(PARSER),
    }
    if about.licence:
        fields[5] = writer.text(about.licence)
    writer.builder.Finish(writer.table(fields), IDENTIFIER)
    return bytes(writer.builder.Output())


def _image(writer: _Writer, about: Classifier) -> int:
    size = writer.table({}, words={0: about.side, 1: about.side})
    image = writer.table({1: size}, octets={0: _RGB})
    content = writer.table({1: image}, octets={0: _IMAGE})
    scaling = writer.table({0: writer.floats(about.mean), 1: writer.floats(about.std)})
    unit = writer.table({1: scaling}, octets={0: _NORMALIZATION})
    low, high = (
        [(value - mean) / std for mean, std in zip(about.mean, about.std, strict=True)] for value in (0, 255)
    )
    stats = writer.table({0: writer.floats(high), 1: writer.floats(low)})
    return writer.table(
        {
            0: writer.text(about.entry),
            1: writer.text("A square RGB image."),
            3: content,
            4: writer.offsets([unit]),
            5: stats,
        }
    )


def _scores(writer: _Writer, about: Classifier) -> int:
    content = writer.table({1: writer.table({})}, octets={0: _FEATURE})
    files = [
        writer.table(
            {0: writer.text(file.name)} | ({3: writer.text(file.locale)} if file.locale else {}),
            octets={2: _AXIS_LABELS},
        )
        for file in about.labels
    ]
    stats = writer.table({0: writer.floats([1.0]), 1: writer.floats([0.0])})
    return writer.table(
        {
            0: writer.text(about.result),
            1: writer.text("The calibrated probability of each class."),
            3: content,
            5: stats,
            6: writer.offsets(files),
        }
    )
