"""The small CLIP of `suites/small/`, pre-trained on drawn glyphs.

    python benchmarks/glyph_clip.py

prints the model's folder; the first time it trains it, in a few minutes. Width 128, four blocks, patches of 8 of 32
pixels: photographs are new to it. `--digits FOLDER` writes scikit-learn's digits too, for the suites that use them.
"""

import argparse
from pathlib import Path

from randlora.demo.digits import write_digits
from randlora.demo.pretrain import PretrainRecipe, pretrained_clip

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
RECIPE = PretrainRecipe(image_size=32, patch_size=8, width=128, layers=4, steps=300, words=(CLASSES,))


def main() -> None:
    """Pre-train the model, where that has not been done, and print its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="a folder for the digits")
    arguments = parser.parse_args()
    if arguments.digits is not None:
        write_digits(arguments.digits)
    print(pretrained_clip(RECIPE))


if __name__ == "__main__":
    main()
