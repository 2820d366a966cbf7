"""Pictures of characters with captions, rendered from the fonts that matplotlib ships.

The demo needs image-text pairs to pre-train a CLIP on without downloading anything. Each pair is one character in one
of 17 typefaces (DejaVu, STIX, Computer Modern), distorted at random, and a sentence that says what it is.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATE = "a photo of the digit {}"
_SYMBOLS = {
    "+": "plus sign",
    "=": "equals sign",
    "?": "question mark",
    "!": "exclamation mark",
    "#": "hash sign",
    "%": "percent sign",
    "&": "ampersand sign",
    "@": "at sign",
    "*": "asterisk sign",
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHARACTER_NAMES: dict[str, str] = {
    **{str(value): f"digit {name}" for value, name in enumerate(DIGIT_NAMES)},
    **{letter: f"letter {letter.lower()}" for letter in _LETTERS},
    **_SYMBOLS,
}
"""Every character that is drawn, and its name in a caption."""

TYPEFACES: dict[str, str] = {
    "DejaVuSans": "sans",
    "DejaVuSans-Bold": "bold sans",
    "DejaVuSans-Oblique": "italic sans",
    "DejaVuSans-BoldOblique": "bold italic sans",
    "DejaVuSansMono": "typewriter",
    "DejaVuSansMono-Bold": "bold typewriter",
    "DejaVuSerif": "serif",
    "DejaVuSerif-Bold": "bold serif",
    "DejaVuSerif-Italic": "italic serif",
    "STIXGeneral": "serif",
    "STIXGeneralBol": "bold serif",
    "STIXGeneralItalic": "italic serif",
    "cmr10": "serif",
    "cmb10": "bold serif",
    "cmss10": "sans",
    "cmti10": "italic serif",
    "cmtt10": "typewriter",
}
"""File name (without .ttf) of every font that has all the characters, and its style in a caption."""

_TEMPLATES = ("a photo of the {name}", "the {name} in {style}", "a picture of the {name} in {style}")
_DIGIT_SHARE = 0.4  # of all glyphs, so that the digits, 10 of 45 characters, are seen often enough
_MASK_PIXELS = 64  # side of the undistorted drawing; larger than the images, so that scaling does not blur it


@dataclass(frozen=True)
class GlyphBatch:
    """Pairs of pictures and captions.

    Attributes:
        images: uint8 array (batch, size, size), grey levels.
        captions: One sentence per image.
        characters: The character that each image shows.
    """

    images: np.ndarray
    captions: list[str]
    characters: list[str]


@cache
def _mask(character: str, typeface: str, stroke: int) -> Image.Image:
    """White character on black, centred, at a fixed size; drawn once, since the distortions come after."""
    import matplotlib as mpl  # noqa: PLC0415 -- an optional package, and slow to import

    path = Path(mpl.get_data_path(), "fonts", "ttf", f"{typeface}.ttf")
    font = ImageFont.truetype(str(path), size=44)
    mask = Image.new("L", (_MASK_PIXELS, _MASK_PIXELS))
    left, top, right, bottom = font.getbbox(character, stroke_width=stroke)
    corner = ((_MASK_PIXELS - left - right) / 2, (_MASK_PIXELS - top - bottom) / 2)
    ImageDraw.Draw(mask).text(corner, character, fill=255, font=font, stroke_width=stroke)
    return mask


def _distortion(rng: np.random.Generator, size: int) -> tuple[float, ...]:
    """Coefficients of a random affine map from image pixels to mask pixels: scale, rotation, shear, shift."""
    zoom = _MASK_PIXELS / size / rng.uniform(0.9, 1.7)
    angle = np.deg2rad(rng.uniform(-15, 15))
    stretch, shear = rng.uniform(0.85, 1.2), rng.uniform(-0.25, 0.25)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    linear = zoom * rotation @ np.array([[stretch, shear], [0.0, 1.0]])
    centre = (size - 1) / 2 + rng.uniform(-0.1, 0.1, size=2) * size
    shift = (_MASK_PIXELS - 1) / 2 - linear @ centre
    return (linear[0, 0], linear[0, 1], shift[0], linear[1, 0], linear[1, 1], shift[1])


def render(character: str, typeface: str, rng: np.random.Generator, size: int = 16) -> np.ndarray:
    """One distorted picture of a character.

    Size, position, rotation, slant, stroke width, sharpness, grey levels and polarity are drawn from `rng`.

    Args:
        character: A key of `CHARACTER_NAMES`.
        typeface: A key of `TYPEFACES`.
        rng: Source of the distortions.
        size: Side of the image in pixels.

    Returns:
        uint8 array (size, size).
    """
    mask = _mask(character, typeface, int(rng.integers(0, 3)))
    picture = mask.transform((size, size), Image.Transform.AFFINE, _distortion(rng, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:  # half of them coarse, as a small scan is
        coarse = int(rng.integers(size // 3, size // 2 + 1))
        picture = picture.resize((coarse, coarse), Image.Resampling.BOX)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    ink, paper = rng.uniform(0.7, 1.0), rng.uniform(0.0, 0.2)
    if rng.random() < 0.2:  # dark on light; the handwriting is light on dark, as most glyphs are
        ink, paper = paper, ink
    coverage = np.asarray(picture, dtype=np.float32) / 255
    return np.round(255 * (paper + (ink - paper) * coverage)).astype(np.uint8)


def caption(character: str, typeface: str, rng: np.random.Generator) -> str:
    """A sentence that names the character and, two times in three, the style of the typeface."""
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))]
    return template.format(name=CHARACTER_NAMES[character], style=TYPEFACES[typeface])


def all_captions() -> list[str]:
    """Every caption that can occur, in a fixed order; a tokenizer's vocabulary is built from them."""
    styles = sorted(set(TYPEFACES.values()))
    sentences = [
        template.format(name=name, style=style)
        for template in _TEMPLATES
        for name in CHARACTER_NAMES.values()
        for style in styles
    ]
    return list(dict.fromkeys(sentences))


def draw_batch(count: int, rng: np.random.Generator, size: int = 16) -> GlyphBatch:
    """Random characters in random typefaces, two in five of them digits.

    Args:
        count: Number of pairs.
        rng: Source of everything that is random; the same state gives the same batch.
        size: Side of the images in pixels.
    """
    digits = [character for character in CHARACTER_NAMES if character.isdigit()]
    others = [character for character in CHARACTER_NAMES if not character.isdigit()]
    typefaces = list(TYPEFACES)
    images, captions, characters = [], [], []
    for _ in range(count):
        pool = digits if rng.random() < _DIGIT_SHARE else others
        character, typeface = pool[rng.integers(len(pool))], typefaces[rng.integers(len(typefaces))]
        images.append(render(character, typeface, rng, size))
        captions.append(caption(character, typeface, rng))
        characters.append(character)
    return GlyphBatch(np.stack(images), captions, characters)
