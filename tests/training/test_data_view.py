"""Data before training: counted, and shown as training sees them, without the model's weights."""

import json
from dataclasses import replace

import pytest

from randlora.errors import ConfigError
from randlora.training import PreferenceData, SftData
from randlora.training.data_view import look_at


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", refuse)


def test_conversations(sft_config):
    sft_config.data.validation = 0.25
    view = look_at(sft_config, examples=2)
    assert list(view.statistics) == ["train", "validation", "test"]
    assert view.statistics["train"].startswith("30 examples")
    assert "(25.6%)" in view.statistics["train"]
    assert len(view.examples) == 2
    title, text = view.examples[0]
    assert title == "train, example 1 of 30:"
    assert text.startswith("<s> user : ")
    assert text.count("⟦") == text.count("⟧") == 1
    assert "\x1b[" in look_at(sft_config, colour=True).examples[0][1]


def test_what_cutting_does_is_counted(sft_config):
    sft_config.data.max_length, sft_config.data.drop_empty = 33, True
    assert "40 cut" in look_at(sft_config, examples=0).statistics["train"]
    assert look_at(sft_config, examples=0).examples == []


@pytest.mark.parametrize("packing", [False, True])
def test_texts_are_cut_where_the_models_context_ends(sft_config, tmp_path, packing):
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "ab" * 100}), encoding="utf-8")
    view = look_at(replace(sft_config, data=SftData(train=str(tmp_path / "long.jsonl"), packing=packing)))
    assert "1 examples of 128 to 128 tokens" in view.statistics["train"]
    assert view.examples[0][1] == f"a⟦b{'ab' * 63}⟧"
    sft_config.data.max_length = 129
    with pytest.raises(ConfigError, match=r"data\.max_length: expected at most 128, the model's context"):
        look_at(sft_config)


def test_a_gguf_file_is_read_where_it_is_unpacked(sft_config, tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("randlora.tasks.sources.converted", lambda _: sft_config.model)
    assert look_at(replace(sft_config, model=str(tmp_path / "model.gguf"))) == look_at(sft_config)


def test_preferences(sft_config, tmp_path):
    row = {"prompt": "abc", "chosen": " dd", "rejected": " c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row), encoding="utf-8")
    data = PreferenceData(train=str(tmp_path / "pairs.jsonl"), max_length=64)
    view = look_at(replace(sft_config, task="preference", data=data))
    assert view.examples[0][1] == "abc⟦ dd</s>⟧\n  or, worse:\nabc⟦ c</s>⟧"


def test_classes(text_config):
    text_config.data.validation = 0.25
    view = look_at(replace(text_config, model="./absent"))
    assert view.counts[-1] == {"class": "all", "train": 36, "validation": 12, "test": 16}
    assert {row["class"] for row in view.counts[:-1]} == {"pay", "lost_card"}
    assert len(view.examples) == 3


def test_images(image_config):
    view = look_at(image_config)
    assert view.counts[0] == {"class": "dark_blue", "train": 8, "test": 4}
    assert "png" in view.examples[0][1] or "24 x 20 pixels" in view.examples[0][1]


def test_wrong_numbers_and_models(sft_config):
    with pytest.raises(ConfigError, match="--examples"):
        look_at(sft_config, examples=-1)
    with pytest.raises(ConfigError, match="absent"):
        look_at(replace(sft_config, model="./absent"))
