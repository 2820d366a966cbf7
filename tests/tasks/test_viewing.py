"""Images of every kind come out as a viewer shows them."""

import io
import os

import numpy as np
import PIL.Image
import pytest

from randlora.tasks.classification.viewing import view

GRADIENT = np.linspace(0, 255, 48).reshape(6, 8).round().astype(np.uint8)
GREY = np.repeat(GRADIENT[..., None], 3, axis=2)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(encoded):
    image = view(encoded)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GRADIENT, "PNG"),
        (GRADIENT.astype(np.uint16) * 257, "PNG"),
        (GRADIENT.astype(np.uint16) * 257, "TIFF"),
        (GRADIENT.astype(">u2") * 257, "TIFF"),
        (GRADIENT.astype(np.int32) * 257, "TIFF"),
        (GRADIENT.astype(np.uint16) * 257, "PPM"),
        (GRADIENT.astype(np.float32) / 255, "TIFF"),
        (GRADIENT.astype(np.float32), "TIFF"),
    ],
)
def test_a_gradient_stays_one_at_any_depth(values, kind):
    np.testing.assert_array_equal(pixels(encode(PIL.Image.fromarray(values), kind)), GREY)


def test_a_dark_image_in_16_bits_stays_dark():
    assert pixels(encode(PIL.Image.fromarray(np.full((4, 4), 300, np.uint16)))).max() == 1


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 4), 300.0, np.float32),
        np.full((4, 4), -0.5, np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), 2**20, np.int32),
        np.full((4, 4), -1, np.int32),
    ],
)
def test_values_of_which_none_is_known_to_be_white_are_refused(values):
    with pytest.raises(ValueError, match="none is known to be white"):
        view(encode(PIL.Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photograph_is_turned_as_the_camera_says(orientation, kind):
    stored = PIL.Image.new("RGB", (32, 16))
    stored.paste((255, 255, 255), (0, 0, 16, 8))  # white where the stored image is left and above
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    shown = pixels(encode(stored, kind, exif=exif)).mean(axis=2) > 128
    assert shown.shape == ((32, 16) if orientation > 4 else (16, 32))
    # Exif: the stored image's first row and column are the shown one's (top, left), (top, right), ...
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    corners = [(row, column) for row in (0, -1) for column in (0, -1) if shown[row, column]]
    assert corners == [corner[orientation]]


def test_damaged_exif_leaves_the_image_as_it_lies():
    np.testing.assert_array_equal(pixels(encode(PIL.Image.fromarray(GRADIENT), exif=b"Exif\0\0MM\0*\xff\xff")), GREY)


def transparent(mode):
    image = PIL.Image.new("RGBA", (2, 1), (200, 200, 200, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "P":
        image = PIL.Image.new("P", (2, 1))
        image.putpalette([200, 200, 200, 0, 0, 0])
        image.putpixel((1, 0), 1)
        return encode(image, transparency=1)
    if mode in {"L", "RGB"}:
        image = image.convert(mode)
        return encode(image, transparency=0 if mode == "L" else (0, 0, 0))
    return encode(image.convert(mode), "TIFF" if mode == "RGBA" else "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_shows_white(mode):
    np.testing.assert_array_equal(pixels(transparent(mode)), [[[200] * 3, [255] * 3]])


def test_half_transparent_black_is_grey():
    assert abs(int(pixels(encode(PIL.Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0, 0]) - 127) <= 1


def test_one_bit_palettes_and_inks():
    bits = PIL.Image.fromarray(GRADIENT > 128)
    np.testing.assert_array_equal(pixels(encode(bits)), np.where(GREY > 128, 255, 0))
    palette = PIL.Image.fromarray(GREY).quantize(48)
    np.testing.assert_array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))
    for kind in ("TIFF", "JPEG"):
        inks = pixels(encode(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind))
        assert np.abs(inks.astype(int) - [255, 0, 0]).max() <= 3  # magenta and yellow are red


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert pixels(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))[0, 0].tolist() == [
        255,
        0,
        0,
    ]


def test_what_would_start_another_program_or_fill_the_memory_is_refused():
    with pytest.raises(PIL.UnidentifiedImageError):
        view(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    huge = bytearray(encode(PIL.Image.new("1", (1, 1)), "PPM"))
    with pytest.raises(PIL.Image.DecompressionBombError):
        view(bytes(huge.replace(b"1 1\n", b"90000 90000\n")))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(OSError, match="a pipe lies there"):
            view(tmp_path / name)
