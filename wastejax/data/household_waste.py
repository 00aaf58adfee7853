"""TFDS builder `household_waste`: the Kaggle archive to ArrayRecord, the encoded bytes kept as they are.

The archive is "Recyclable and Household Waste Classification" (kaggle.com, alistairking): 30 classes of 500
images, half of them studio images, half real world. Download it, then, once:

    python -m wastejax.data.household_waste --archive=archive.zip --data_dir=DIR

and train with `--config.data.source=tfds:household_waste --config.data.dir=DIR`. TensorFlow is not needed.
"""

import argparse
import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from wastejax.data.sources import Source, open_folder
from wastejax.errors import ConfigError, UserError
from wastejax.files import user_path

_TFDS_SPLITS = {"train": "train", "val": "validation", "test": "test"}


class HouseholdWaste(tfds.core.GeneratorBasedBuilder):
    """Images of household waste with class, domain and file name.

    Features: `image` (encoded file, any format), `label`, `domain` ('default', 'real_world' or ''), and `file_name`
    relative to the folder of class folders, the same as `open_folder` gives. The classes are those of the archive.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS asks for a class attribute
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download and unpack alistairking's household waste archive from kaggle.com."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images of recyclable and household waste, studio and real world.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(),  # names: from the archive
                    "domain": tfds.features.Text(),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.kaggle.com/datasets/alistairking/recyclable-and-household-waste-classification",
            disable_shuffling=True,  # records in the order of the names
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        source = open_folder(dl_manager.manual_dir, key="archive")
        self.info.features["label"].names = list(source.classes)
        splits = np.array(source.splits or ["train"] * len(source))
        return {
            _TFDS_SPLITS[split]: self._generate_examples(source, np.flatnonzero(splits == split))
            for split in sorted(set(splits.tolist()))
        }

    def _generate_examples(self, source: Source, indices: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in indices.tolist():
            yield (
                i,
                {
                    "image": io.BytesIO(source.read(i)),
                    "label": int(source.labels[i]),
                    "domain": source.domains[i],
                    "file_name": source.names[i],
                },
            )


def build(archive: str | Path, data_dir: str | Path) -> Path:
    """Writes the data set as ArrayRecord files, unless they are there.

    Args:
        archive: the Kaggle archive, as a ZIP file or unpacked.
        data_dir: TFDS data directory; the data set goes to `household_waste/1.0.0` in it.

    Returns:
        The folder of the data set.

    Raises:
        UserError: the archive is missing, damaged, or has no images in class folders.
    """
    archive, data_dir = user_path(archive), user_path(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    builder = HouseholdWaste(data_dir=data_dir, file_format="array_record")
    if builder.info.splits:
        return Path(builder.data_dir)
    if archive.is_dir():
        _prepare(builder, archive)
        return Path(builder.data_dir)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix="unpacked-") as unpacked:
        try:
            with zipfile.ZipFile(archive) as file:
                file.extractall(unpacked)
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise ConfigError(
                "archive", f"cannot unpack {str(archive)!r}: {error}; give the ZIP or its folder"
            ) from error
        _prepare(builder, Path(unpacked))
    return Path(builder.data_dir)


def _prepare(builder: HouseholdWaste, folder: Path) -> None:
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))


def main() -> None:
    """Command line: `python -m wastejax.data.household_waste --archive=… --data_dir=…`."""
    parser = argparse.ArgumentParser(description="Write the Kaggle archive as a TFDS data set.")
    parser.add_argument("--archive", required=True, help="the Kaggle archive: ZIP file or unpacked folder")
    parser.add_argument("--data_dir", required=True, help="TFDS data directory to write to")
    args = parser.parse_args()
    try:
        print(build(args.archive, args.data_dir))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
