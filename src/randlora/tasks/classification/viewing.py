"""Encoded images as a viewer shows them: turned upright, 8 bits of red, green and blue, on white."""

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image

from randlora.tasks.paths import FILE, kind_of

WHITE_16 = 2**16 - 1
"""White in 16 bits; 257 = WHITE_16 / 255 of its levels are one of 8 bits."""

_ORIENTATION = 0x0112
"""Exif's tag: how the camera was held."""

_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def view(source: bytes | str | os.PathLike[str]) -> PIL.Image.Image:
    """Decode an image.

    Of an animation it is the first frame; transparent parts show white; 16 bits are reduced to 8. Floats up to 1 are
    shares of white, floats up to 255 levels of 8 bits. Colour profiles are not applied.

    Args:
        source: The encoded image, or its path.

    Returns:
        In mode RGB.

    Raises:
        OSError: It is no file, no image, or cut short; Pillow raises other classes too.
        ValueError: Its values have no white: floats below 0, above 255 or not finite, integers above 16 bits.
    """
    if not isinstance(source, bytes) and kind_of(Path(source)) != FILE:
        raise OSError(f"{kind_of(Path(source))} lies there")
    with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
        image.load()
        turn = _turn(image)
        shown = _on_white(_in_8_bits(image))
        return shown if turn is None else shown.transpose(turn)


def _formats() -> list[str]:
    """All that Pillow reads by itself; for PostScript it would start another program."""
    PIL.Image.init()
    return [name for name in PIL.Image.ID if name != "EPS"]


def _turn(image: PIL.Image.Image) -> PIL.Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a viewer shows an image with damaged Exif as it lies
        return None


def _in_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    white_of_floats = 1 if high <= 1 else 255
    white = white_of_floats if image.mode == "F" else WHITE_16
    if not 0 <= low <= high <= white:
        raise ValueError(f"values from {low:g} to {high:g}, of which none is known to be white")
    return PIL.Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode not in {"LA", "La", "PA", "RGBA", "RGBa"} and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = PIL.Image.new("RGBA", image.size, "white")
    return PIL.Image.alpha_composite(white, image).convert("RGB")
