"""`attn_implementation`: every task's model takes the attention that the config names, or says why not."""

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from randlora.errors import ConfigError
from randlora.training import train
from randlora.training.config import load_config, resolve
from randlora.training.inspection import inspect_run
from tiny import task_of


def attentions(config):
    backbone = task_of(resolve(config), ["a", "b"]).backbone
    return {part.config._attn_implementation for part in backbone.modules() if isinstance(part, PreTrainedModel)}


@pytest.mark.parametrize("wanted", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["sft", "image", "text", "mean"])
def test_every_tower_takes_it(kind, wanted, request):
    config = request.getfixturevalue("text_config" if kind == "mean" else f"{kind}_config")
    if kind == "mean":
        config = replace(config, data=replace(config.data, pooling="mean"))
    assert attentions(replace(config, attn_implementation=wanted)) == {wanted}


def test_a_run_trains_with_it_and_learns_the_same(sft_config, tmp_path):
    losses = {}
    for name in ("eager", "sdpa"):
        config = replace(sft_config, output=str(tmp_path / name), attn_implementation=name)
        losses[name] = train(config).metrics["test_loss"]
        assert load_config(tmp_path / name / "config.yaml").attn_implementation == name
    assert losses["eager"] == pytest.approx(losses["sdpa"], rel=1e-4)


def test_the_prediction_counts_its_square_of_the_length(sft_config):
    data = replace(sft_config.data, max_length=60)
    step = {
        name: inspect_run(replace(sft_config, data=data, attn_implementation=name)).prediction.step_bytes
        for name in ("eager", "sdpa")
    }
    assert step["eager"] > step["sdpa"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, flash attention may be there too")
def test_what_is_not_installed_or_not_known_is_refused(text_config, bert, tmp_path):
    with pytest.raises(ConfigError, match="attn_implementation"):
        attentions(replace(text_config, attn_implementation="flash_attention_2"))
    file = tmp_path / "config.yaml"
    file.write_text(f"model: {bert}\nattn_implementation: flash\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"attn_implementation: expected one of eager, sdpa"):
        load_config(file)


def test_a_model_that_has_one_attention_refuses_others(text_config, monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "_can_set_attn_implementation", classmethod(lambda _: False))
    with pytest.raises(ConfigError, match="null for a BertForSequenceClassification"):
        attentions(replace(text_config, attn_implementation="eager"))
