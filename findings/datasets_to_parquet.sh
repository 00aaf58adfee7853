#!/bin/sh
# datasets 5.2.0: Dataset.to_parquet writes of an image that is a file nothing but its path, without a word. Only
# push_to_hub embeds the bytes; whoever copies the Parquet file elsewhere has lost the images. wastejax reads the file at
# that path, below the Parquet file or where it was. Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow pyarrow
cd "$folder"
venv/bin/python - <<'END'
from datasets import Dataset, Features, Image
from datasets.table import embed_table_storage
from PIL import Image as Pictures
from pyarrow import parquet

Pictures.new("RGB", (8, 8), "red").save("red.png")
rows = Dataset.from_dict({"image": ["red.png"]}, features=Features({"image": Image()}))
rows.to_parquet("paths.parquet")
assert parquet.read_table("paths.parquet").to_pylist() == [{"image": {"bytes": None, "path": "red.png"}}]
rows.with_format("arrow").map(embed_table_storage, batched=True).with_format(None).to_parquet("bytes.parquet")
(row,) = parquet.read_table("bytes.parquet").to_pylist()
assert row["image"]["bytes"] == open("red.png", "rb").read()
END
echo "datasets 5.2.0 writes paths instead of images, unless they are embedded first"
