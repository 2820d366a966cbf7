"""The predicted peak is that of real steps, as the allocator counts them, and moves as it must."""

import json
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, ViTConfig, ViTForImageClassification

from randlora.training import ImageData, MethodConfig, PreferenceData, SftData, train
from randlora.training.config import resolve
from randlora.training.inspection import inspect_run
from randlora.training.prediction import predict_from_config, step
from randlora.training.run.trainer import RunTrainer

METHODS = {
    "lora": MethodConfig("lora", r=4),
    "structured": MethodConfig("randlora", r=4),
    "uniform": MethodConfig("randlora", r=4, bases="uniform"),
    "hybrid": MethodConfig("hybrid", r=8, options={"lora_r": 2}),
    "full": MethodConfig("full"),
}


@pytest.fixture(autouse=True)
def exact_heap(monkeypatch):
    """What is compared is what tensors take, without the allowance for glibc's heap."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")


@pytest.fixture
def long_sft(sft_config, tmp_path):
    """Examples that are all of 60 tokens, in batches that take far more memory than the tiny model."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": "ab c" * 30}) + "\n" for _ in range(64)), encoding="utf-8")
    data = SftData(train=str(path), max_length=60, general=False)
    return replace(sft_config, data=data, optimization=replace(sft_config.optimization, batch_size=16, max_steps=2))


def with_optimization(config, **options):
    return replace(config, optimization=replace(config.optimization, **options))


def step_bytes(config):
    prediction = inspect_run(config).prediction
    assert prediction.peak_bytes is not None, prediction.assumed
    assert prediction.peak_bytes > prediction.step_bytes
    return prediction.step_bytes


def measured(config, monkeypatch):
    """Most that a run's second step has allocated, by PyTorch's profiler, with the state of AdamW from the first."""
    peaks = []
    ordinary = RunTrainer.training_step

    def step(self, *args, **kwargs):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            loss = ordinary(self, *args, **kwargs)
        held = peak = 0
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        for event in sorted(events, key=lambda event: event.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
        states = 8 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        peaks.append(peak + states)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "training_step", step)
        train(config)
    return max(peaks)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "precision"), [*((name, "bf16") for name in METHODS), ("structured", "fp32")])
def test_prediction_is_within_a_fifth_of_a_step_of_sft(long_sft, method, precision, monkeypatch):
    config = with_optimization(replace(long_sft, method=METHODS[method]), precision=precision)
    assert step_bytes(config) == pytest.approx(measured(config, monkeypatch), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["checkpointing", "packing", "accumulation"])
def test_prediction_follows_what_changes_a_step(long_sft, change, monkeypatch):
    config = {
        "checkpointing": with_optimization(long_sft, gradient_checkpointing=True),
        "packing": replace(long_sft, data=replace(long_sft.data, packing=True)),
        "accumulation": with_optimization(long_sft, gradient_accumulation_steps=2),
    }[change]
    assert step_bytes(config) == pytest.approx(measured(config, monkeypatch), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "examples", "tokens"), [(9, 64, 37), (5, 66, 63), (2, 21, 63)])
def test_prediction_of_packed_rows_that_are_not_full(long_sft, tmp_path, words, examples, tokens, monkeypatch):
    """A row of 64 holds one example of 37 tokens, three of 21 or seven of 9; of the last there are three rows."""
    path = tmp_path / "texts.jsonl"
    path.write_text((json.dumps({"text": "ab c" * words}) + "\n") * examples, encoding="utf-8")
    data = replace(long_sft.data, max_length=64, packing=True)
    config = replace(long_sft, data=data)
    prediction = inspect_run(config).prediction
    assert f"packed rows of {tokens} tokens" in prediction.assumed
    assert prediction.step_bytes == pytest.approx(measured(config, monkeypatch), rel=0.2)


@pytest.mark.slow
def test_prediction_of_preferences(long_sft, tmp_path, monkeypatch):
    rows = [{"prompt": "a", "chosen": "b" * 80, "rejected": "c" * 80}] * 64
    rows = [{**row, "prompt": f"a{number:02}"} for number, row in enumerate(rows)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = PreferenceData(train=str(path), max_length=60, general=False)
    config = replace(long_sft, task="preference", data=data)
    assert step_bytes(config) == pytest.approx(measured(config, monkeypatch), rel=0.2)


@pytest.mark.slow
def test_prediction_of_texts(text_config, texts, monkeypatch):
    lines = ["text,label", *(f"{'where is my money now ' * 6},{label}" for label in ("pay", "lost_card") * 24)]
    (texts / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text_config = with_optimization(text_config, batch_size=24, max_steps=2)
    assert step_bytes(text_config) == pytest.approx(measured(text_config, monkeypatch), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["image-text", "image-classification"])
def test_prediction_of_images(image_config, clip, tmp_path, task, monkeypatch):
    config = with_optimization(image_config, batch_size=24, max_steps=2)
    if task == "image-classification":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=4)).save_pretrained(tmp_path / "vit")
        (tmp_path / "vit" / "preprocessor_config.json").write_bytes((clip / "preprocessor_config.json").read_bytes())
        data = ImageData(train=config.data.train, test=config.data.test)
        config = replace(config, task=task, model=str(tmp_path / "vit"), data=data)
    assert step_bytes(config) == pytest.approx(measured(config, monkeypatch), rel=0.2)


def test_more_rows_and_longer_ones_take_more_and_checkpoints_less(long_sft):
    whole = step_bytes(long_sft)
    assert step_bytes(with_optimization(long_sft, batch_size=32)) > 1.5 * whole
    assert step_bytes(replace(long_sft, data=replace(long_sft.data, max_length=30))) < 0.7 * whole
    assert step_bytes(with_optimization(long_sft, gradient_checkpointing=True)) < whole


def test_a_step_of_lora_in_bf16_copies_no_input_to_float32(long_sft, monkeypatch):
    config = with_optimization(replace(long_sft, method=METHODS["lora"]), precision="bf16")
    lean = step_bytes(config)
    monkeypatch.delattr(RunTrainer, "training_step")
    assert lean < step_bytes(config)


@pytest.mark.slow
def test_and_ends_with_the_same_bits(long_sft, monkeypatch, tmp_path):
    config = with_optimization(replace(long_sft, method=METHODS["lora"]), precision="bf16")
    adapters = []
    for name in ("ours", "peft's"):
        if name != "ours":
            monkeypatch.delattr(RunTrainer, "training_step")
        train(replace(config, output=str(tmp_path / name)))
        adapters.append((tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_without_data_at_hand_rows_are_as_long_as_they_may_be(long_sft):
    elsewhere = replace(long_sft, data=SftData(train="somebody/something", max_length=60))
    assert "the most that data.max_length keeps" in inspect_run(elsewhere).prediction.assumed
    assert step_bytes(elsewhere) == step_bytes(long_sft)


@pytest.mark.parametrize(("kind", "method"), [("sft_config", "dora"), ("image_config", "randlora")])
def test_without_weights_the_step_is_the_same(request, kind, method):
    config = request.getfixturevalue(kind)
    data = replace(config.data, train="somebody/something", test="somebody/something")
    config = resolve(replace(config, data=data, method=MethodConfig(method)))
    found, expected = predict_from_config(config), inspect_run(config).prediction
    assert (found.step_bytes, found.assumed) == (expected.step_bytes, expected.assumed)


def test_a_model_in_the_folder_where_one_is_is_no_name_on_the_hub(sft_config, llama, monkeypatch):
    monkeypatch.chdir(llama.parent)
    config = resolve(replace(sft_config, model=llama.name))
    assert predict_from_config(config).step_bytes == predict_from_config(replace(config, model=str(llama))).step_bytes


def test_weights_count_where_there_are_none_yet(long_sft, monkeypatch):
    monkeypatch.setattr(step, "current_bytes", lambda _: 0)
    data = SftData(train="somebody/something", max_length=60)
    found = predict_from_config(resolve(replace(long_sft, data=data, dtype="bfloat16", method=MethodConfig("full"))))
    numbers = sum(part.numel() for part in AutoModelForCausalLM.from_pretrained(long_sft.model).parameters())
    frequencies = 2 * 16  # of positions, in float32
    assert found.peak_bytes - found.step_bytes - 2**25 == 2 * numbers + 4 * frequencies


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "nobody/has-this"}, "model: expected one whose files are on this machine, got nobody/has-this"),
        ({"quantization": "int8"}, "quantization: expected weights to quantize"),
        ({"method": MethodConfig("spectral", r=4)}, "for its SVD"),
    ],
)
def test_why_there_is_no_prediction_without_weights(long_sft, changes, why):
    found = predict_from_config(resolve(replace(long_sft, **changes)))
    assert (found.peak_bytes, found.step_bytes) == (None, None)
    assert why in found.assumed


def test_heap_is_allowed_for(long_sft, monkeypatch):
    exact = step_bytes(long_sft)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    assert exact < step_bytes(long_sft) < 1.3 * exact


def test_a_step_that_cannot_be_followed_is_said_to_be_so(long_sft, monkeypatch):
    def reads_numbers(self, *args, **kwargs):
        return torch.tensor(next(self.model.parameters()).numpy())

    monkeypatch.setattr(RunTrainer, "training_step", reads_numbers)
    found = inspect_run(long_sft)
    assert found.prediction.peak_bytes is None
    assert "cannot be followed" in found.prediction.assumed
    assert found.training_bytes > 0
