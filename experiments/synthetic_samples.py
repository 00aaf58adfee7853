"""Draws the figure of the embedded data set: each of the 30 classes on plain and on cluttered ground.

python experiments/synthetic_samples.py [OUT.png]
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from wastejax.data.drawing import dataset as synthetic

OUT = Path(__file__).parent / "results" / "synthetic_samples.png"
SIDE, GAP, LINE, COLUMNS = 104, 2, 22, 5
INDEX = {"default": 2, "real_world": 5}  # which image of each class is shown


def sheet() -> Image.Image:
    width, height = 2 * SIDE + 5 * GAP, SIDE + LINE
    rows = -(-len(synthetic.CLASSES) // COLUMNS)
    figure = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    ink, font = ImageDraw.Draw(figure), ImageFont.load_default(size=13)
    for k, name in enumerate(synthetic.CLASSES):
        left, top = k % COLUMNS * width + 2 * GAP, k // COLUMNS * height
        ink.text((left, top + 3), name.replace("_", " "), "black", font)
        for n, domain in enumerate(synthetic.DOMAINS):
            image = synthetic.draw(name, INDEX[domain], domain).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            figure.paste(image, (left + n * (SIDE + GAP), top + LINE))
    return figure.point([v & 0xF8 | v >> 5 for v in range(256)] * 3)  # 5 bits a channel: half the bytes


if __name__ == "__main__":
    sheet().save(sys.argv[1] if len(sys.argv) > 1 else OUT, optimize=True)
