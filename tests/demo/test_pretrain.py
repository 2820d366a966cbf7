from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from randlora.demo import glyphs
from randlora.demo.clip import build_model, build_tokenizer
from randlora.demo.pretrain import PretrainRecipe, cache_folder, contrastive_loss, pixels_to_input, pretrained_clip
from randlora.errors import OutputError

TINY = PretrainRecipe(width=32, layers=1, steps=3, batch_size=8)


def test_tokenizer_knows_every_word_and_marks_the_ends():
    tokenizer = build_tokenizer(glyphs.all_captions(), max_length=16)
    encoded = tokenizer(glyphs.all_captions())["input_ids"]
    assert max(map(len, encoded)) <= 16
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert tokenizer.convert_ids_to_tokens(tokenizer("A photo of the digit Nine")["input_ids"]) == (
        ["<bos>", "a", "photo", "of", "the", "digit", "nine", "<eos>"]
    )


def test_text_features_do_not_depend_on_padding():
    tokenizer = build_tokenizer(glyphs.all_captions(), max_length=16)
    model = build_model(tokenizer, image_size=8, width=32, layers=2).eval()
    alone = tokenizer(["the letter k in serif"], return_tensors="pt")
    padded = tokenizer(["the letter k in serif"], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        features = [model.get_text_features(**text).pooler_output for text in (alone, padded)]
    torch.testing.assert_close(*features)


def test_loss_is_least_when_subjects_are_told_apart():
    subjects = ["a", "b", "a"]
    told_apart = 20 * torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    mixed_up = told_apart[[1, 0, 2]]
    least = contrastive_loss(told_apart, subjects)
    torch.testing.assert_close(least, torch.tensor(2 / 3 * np.log(2), dtype=torch.float32))  # two equal matches
    assert contrastive_loss(mixed_up, subjects) > least + 1


def test_pixels_become_normalized_rgb():
    batch = pixels_to_input(np.array([[[0, 255]]], dtype=np.uint8))
    assert batch.shape == (1, 3, 1, 2)
    torch.testing.assert_close(batch[0, 2, 0], torch.tensor([-1.0, 1.0]))


def test_key_stands_for_the_recipe():
    assert PretrainRecipe().key == PretrainRecipe().key
    assert replace(TINY, seed=1).key != TINY.key


def test_pretrained_once_and_the_same_again(tmp_path):
    folder = pretrained_clip(TINY, tmp_path / "first")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert pretrained_clip(TINY, tmp_path / "first") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    again = pretrained_clip(TINY, tmp_path / "second")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert len(AutoTokenizer.from_pretrained(folder)) == CLIPModel.from_pretrained(folder).config.text_config.vocab_size


def test_training_lowers_the_loss(tmp_path):
    before = CLIPModel.from_pretrained(pretrained_clip(replace(TINY, steps=1), tmp_path))
    after = CLIPModel.from_pretrained(pretrained_clip(replace(TINY, steps=60, batch_size=32), tmp_path))
    tokenizer = build_tokenizer(glyphs.all_captions(), max_length=16)
    batch = glyphs.draw_batch(64, np.random.default_rng(99))
    text = tokenizer(batch.captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        losses = [
            contrastive_loss(
                model(pixel_values=pixels_to_input(batch.images), **text).logits_per_text, batch.characters
            )
            for model in (before, after)
        ]
    assert losses[1] < losses[0] - 0.02


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "randlora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "randlora"


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder that can be written"):
        pretrained_clip(TINY, tmp_path / "file")
