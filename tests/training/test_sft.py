"""Language models: supervised fine-tuning from a config to a run's folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from randlora.errors import ConfigError, DataError
from randlora.training import PreferenceData, SftData, evaluate, train

pytestmark = pytest.mark.slow


def tensors(folder):
    (path,) = (Path(folder) / "adapter").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("method", ["randlora", "lora", "full"])
def test_a_run_learns_and_evaluates_to_its_record(sft_config, method, packing):
    sft_config.method.name, sft_config.data.packing = method, packing
    record = train(sft_config)
    assert record.goal == "loss"
    assert record.metrics["test_loss"] < record.metrics["test_loss_before"]
    assert record.metrics["general_loss"] != record.metrics["general_loss_before"]
    assert record.head_parameters == 0
    assert evaluate(sft_config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-6)
    assert AutoTokenizer.from_pretrained(Path(sft_config.output) / "adapter").chat_template


def test_a_single_step_learns(sft_config):
    sft_config.method.name, sft_config.optimization.max_steps, sft_config.data.general = "lora", 1, False
    record = train(sft_config)
    assert record.metrics["test_loss"] != record.metrics["test_loss_before"]
    assert all(tensor.any() for tensor in tensors(sft_config.output).values())  # LoRA's B is 0 before


def test_the_score_does_not_depend_on_the_batch(sft_config):
    sft_config.optimization.max_steps = 1
    sft_config.data.max_length = 30
    record = train(sft_config)
    counts = [record.metrics[f"train_examples{kind}"] for kind in ("", "_cut", "_left_out")]
    assert counts == [40, 40, 0]
    for size in ("1", "3"):
        scores = evaluate(sft_config.output, ["--optimization.eval_batch_size", size])
        assert scores["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
        assert scores["token_accuracy"] == pytest.approx(record.metrics["test_token_accuracy"])


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_on_a_quantized_base_keeps_its_dtype(sft_config, kind):
    pytest.importorskip({"nf4": "bitsandbytes", "int8": "torchao"}[kind])
    sft_config.quantization = kind
    record = train(sft_config)
    assert record.metrics["test_loss"] < record.metrics["test_loss_before"]
    assert {tensor.dtype for tensor in tensors(sft_config.output).values()} == {torch.float32}
    assert evaluate(sft_config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)


@pytest.mark.parametrize("changes", [{"pad_token": "</s>"}, {"pad_token": None}, {"pad_token": "<unk>"}])
@pytest.mark.parametrize("task", ["sft", "preference"])
def test_no_token_that_pads_is_learned_or_left_out_for_it(sft_config, tmp_path, changes, task):
    """The end of a text is learned though it pads too: losses are those with a token that does nothing else."""
    words = ["a", "abc", "abcdabcd", "dd"] * 4
    rows = [{"prompt": word, "completion": f" {word}"} for word in words]
    pairs = [{"prompt": word, "chosen": f" {word}", "rejected": " no"} for word in words]
    lines = "".join(json.dumps(row) + "\n" for row in (rows if task == "sft" else pairs))
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    data = {"train": str(tmp_path / "rows.jsonl"), "test": str(tmp_path / "rows.jsonl"), "general": False}
    data = SftData(**data) if task == "sft" else PreferenceData(**data)
    model = shutil.copytree(sft_config.model, tmp_path / "model")
    path = model / "tokenizer_config.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**known, **changes}), encoding="utf-8")
    usual, other = (
        train(replace(sft_config, task=task, data=data, model=str(place), output=str(tmp_path / name)))
        for place, name in ((sft_config.model, "usual"), (model, "other"))
    )
    assert other.metrics == pytest.approx(usual.metrics, rel=1e-5)
    assert [entry.get("loss") for entry in other.history] == pytest.approx([e.get("loss") for e in usual.history])


def test_a_validation_share_is_not_trained_on(sft_config):
    sft_config.data.validation = 0.25
    sft_config.optimization = replace(sft_config.optimization, keep_best=True, eval_steps=2, save_steps=2)
    record = train(sft_config)
    curve = [entry["validation_loss"] for entry in record.history if "validation_loss" in entry]
    assert record.metrics["validation_loss"] == pytest.approx(min(curve), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quantization": "nf4", "method.name": "full"}, ConfigError, "quantization: expected none with full"),
        ({"data.max_length": 4096}, ConfigError, r"data\.max_length: expected at most 128, the model's context"),
        ({"data.chat_template_path": "nowhere"}, ConfigError, r"data\.chat_template_path: expected a file"),
        ({"data.max_length": 5}, DataError, r"train\.jsonl.*expected a token to train on among the first 5"),
        ({"data.train": []}, DataError, r"data\.train: expected a hub name"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(sft_config, change, error, message):
    for key, value in change.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(sft_config, section) if section else sft_config, name, value)
    with pytest.raises(error, match=message) as caught:
        train(sft_config)
    assert "\n" not in str(caught.value)
    assert not Path(sft_config.output).exists()
