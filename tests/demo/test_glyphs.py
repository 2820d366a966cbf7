import numpy as np
import pytest

from randlora.demo import glyphs


def test_the_same_generator_draws_the_same_batch():
    first, again, other = (glyphs.draw_batch(20, np.random.default_rng(seed), 16) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert first.characters == again.characters
    assert not np.array_equal(first.images, other.images)


def test_captions_name_the_character_that_is_drawn():
    batch = glyphs.draw_batch(100, np.random.default_rng(0))
    for caption, character in zip(batch.captions, batch.characters, strict=True):
        assert f"the {glyphs.CHARACTER_NAMES[character]}" in caption
    assert set(batch.captions) <= set(glyphs.all_captions())
    assert glyphs.DIGIT_TEMPLATE.format("seven") in glyphs.all_captions()


def test_two_in_five_glyphs_are_digits():
    characters = glyphs.draw_batch(1000, np.random.default_rng(0), size=8).characters
    assert sum(character.isdigit() for character in characters) == pytest.approx(400, abs=60)


@pytest.mark.parametrize("typeface", glyphs.TYPEFACES)
def test_every_typeface_draws_every_character_differently(typeface):
    drawn = {glyphs._mask(character, typeface, 0).tobytes() for character in glyphs.CHARACTER_NAMES}
    assert len(drawn) == len(glyphs.CHARACTER_NAMES)


def test_images_have_size_and_contrast():
    rng = np.random.default_rng(0)
    images = np.stack([glyphs.render("8", "DejaVuSans", rng, size=24) for _ in range(50)])
    assert images.shape == (50, 24, 24)
    assert images.dtype == np.uint8
    assert (np.ptp(images.astype(int), axis=(1, 2)) > 60).all()
    dark_paper = (np.median(images, axis=(1, 2)) < 128).sum()
    assert 25 < dark_paper < 50  # both polarities, light on dark more often
