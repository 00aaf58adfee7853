"""Makes a folder of images that show no waste: photographs that come with Python packages, whole and in crops.

Command: pip download --no-deps scikit-image==0.26.0 && unzip scikit_image-*.whl 'skimage/data/*'
         python experiments/foreign_images.py skimage/data OUT
Those of scikit-learn and Matplotlib are found where these are installed. Seven random crops of each make
nearly 200 images of 23: they are no independent sample, but no two of them are the same.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import sklearn
from PIL import Image

SCIKIT_IMAGE = [
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "clock_motion",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "horse",
    "hubble_deep_field",
    "ihc",
    "moon",
    "motorcycle_left",
    "page",
    "retina",
    "rocket",
    "text",
    "color",
]
CROPS = 7
SEED = 17


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scikit_image", type=Path, help="its folder skimage/data")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    files = [next(args.scikit_image.glob(f"{name}.*")) for name in SCIKIT_IMAGE]
    for package, folder in ((sklearn, "datasets/images"), (matplotlib, "mpl-data/sample_data")):
        files += sorted((Path(package.__file__).parent / folder).glob("*.jpg"))
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        image.save(args.out / f"{file.stem}.png")
        for k in range(CROPS):
            side = int(min(image.size) * rng.uniform(0.4, 0.9))
            x, y = (int(rng.integers(0, extent - side + 1)) for extent in image.size)
            image.crop((x, y, x + side, y + side)).save(args.out / f"{file.stem}_{k}.png")
    print(f"{len(files)} photographs, {len(files) * (1 + CROPS)} images in {args.out}")


if __name__ == "__main__":
    main()
