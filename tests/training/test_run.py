import functools
import gc
import json
import resource
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, CLIPModel, TrainingArguments

from randlora.errors import CheckpointError, ConfigError, DataError, LayerError, OutputError
from randlora.tasks import TASKS
from randlora.training import MethodConfig, Record, evaluate, train
from randlora.training.run import arguments as run_arguments
from tiny import task_of

pytestmark = pytest.mark.slow


def adapter_tensors(folder):
    (path,) = (Path(folder) / "adapter").glob("*.safetensors")
    return load_file(path)


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("method", ["randlora", "lora", "full", "head"])
def test_a_text_run_leaves_a_whole_folder_and_evaluates_to_its_record(text_config, method, pooling):
    text_config.method.name, text_config.data.pooling = method, pooling
    text_config.optimization.head_learning_rate = 2e-2
    record = train(text_config)
    folder = Path(text_config.output)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "record.json", "adapter"}
    assert Record.load(folder) == record
    assert record.head_parameters == 16 * 2 + 2
    assert (record.trainable_parameters == 0) == (method == "head")
    numbers = 4 * (record.trainable_parameters + record.head_parameters)
    assert numbers <= record.adapter_bytes <= 1.05 * numbers + 2**16
    assert record.metrics["test_accuracy"] >= record.metrics["test_accuracy_before"]
    assert record.step_seconds_median > 0
    assert record.peak_memory_bytes > 0
    metrics = evaluate(folder)
    assert metrics["accuracy"] == record.metrics["test_accuracy"]
    assert metrics["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["randlora", "lora"])
@pytest.mark.parametrize("config", ["text_config", "image_config"])
def test_the_adapter_folder_says_what_it_is_and_how_to_load_it(request, config, method, monkeypatch):
    config = request.getfixturevalue(config)
    config.method.name, config.optimization.epochs = method, 1
    record = train(config)
    folder = Path(config.output) / "adapter"
    card = (folder / "README.md").read_text(encoding="utf-8")
    adapter_numbers = record.trainable_parameters
    assert f"| trained numbers | {adapter_numbers:,} in " in card
    assert ("| trained whole |" in card) == ("## Classes" in card) == (record.head_parameters > 0)
    assert all(name.replace("_", "\\_") in card for name in record.facts["label_names"] if record.head_parameters)
    monkeypatch.chdir(folder)
    names = {}
    code = card.partition("```python\n")[2].partition("\n```")[0]
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - what we have just written
    saved = load_file(folder / "adapter_model.safetensors")
    assert same_tensors(peft.get_peft_model_state_dict(names["model"]), saved)


@pytest.mark.parametrize("encoders", ["both", "vision"])
@pytest.mark.parametrize("method", ["randlora", "lora", "full", "head"])
def test_an_image_run_starts_at_zero_shot_and_learns(image_config, method, encoders):
    image_config.method.name, image_config.data.encoders = method, encoders
    record = train(image_config)
    assert record.metrics["test_accuracy"] > record.metrics["test_accuracy_before"]
    assert record.facts["label_names"] == ["dark_blue", "green", "red"]
    assert record.head_parameters == (3 * 8 if method == "head" else 0)
    tensors = adapter_tensors(image_config.output)
    touched = {"text" if "text_" in name else "vision" for name in tensors if name != "head"}
    assert touched == {"head": set(), "vision": {"vision"}}.get(
        "head" if method == "head" else encoders, {"text", "vision"}
    )
    assert evaluate(image_config.output)["accuracy"] == record.metrics["test_accuracy"]


def test_the_image_adapter_fits_a_plain_clip(image_config, clip):
    image_config.optimization.max_steps = 1
    train(image_config)
    model = peft.PeftModel.from_pretrained(CLIPModel.from_pretrained(clip), Path(image_config.output) / "adapter")
    assert isinstance(model.get_base_model(), CLIPModel)


def test_config_yaml_is_resolved_and_safe(text_config):
    text_config.method = MethodConfig(name="lora", r=3)
    text_config.optimization.max_steps = 1
    train(text_config)
    content = yaml.safe_load((Path(text_config.output) / "config.yaml").read_text(encoding="utf-8"))
    assert content["method"]["alpha"] == 6.0
    assert content["optimization"]["max_steps"] == 1


def test_the_same_config_and_seed_give_the_same_bits(text_config, tmp_path):
    text_config.optimization.max_steps = 3
    train(text_config)
    for name, seed in (("again", 0), ("other", 1)):
        train(replace(text_config, output=str(tmp_path / name), seed=seed))
    first = adapter_tensors(text_config.output)
    assert same_tensors(first, adapter_tensors(tmp_path / "again"))
    assert not same_tensors(first, adapter_tensors(tmp_path / "other"))


def test_accumulation_does_not_change_the_step(text_config, tmp_path):
    text_config.method.name = "full"
    text_config.optimization.max_steps = 2
    optimization = replace(text_config.optimization, batch_size=4, gradient_accumulation_steps=2)
    split = replace(text_config, output=str(tmp_path / "split"), optimization=optimization)
    # Dropout draws differ between one batch of 8 and two of 4; the losses agree to well within that, not to 2x.
    whole, parts = train(text_config), train(split)
    assert parts.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"], rel=0.1)


def test_a_finished_run_is_returned_and_not_repeated(text_config):
    text_config.optimization.max_steps = 1
    record = train(text_config)
    weights = next((Path(text_config.output) / "adapter").glob("*.safetensors"))
    written = weights.stat().st_mtime_ns
    assert train(text_config) == record
    assert weights.stat().st_mtime_ns == written


def test_another_run_in_the_folder_is_refused(text_config):
    text_config.optimization.max_steps = 1
    train(text_config)
    with pytest.raises(OutputError, match=r"seed 0 instead of 1"):
        train(replace(text_config, seed=1))


def test_foreign_files_in_the_folder_are_refused_and_kept(text_config):
    folder = Path(text_config.output)
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(OutputError, match="other files"):
        train(text_config)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("method", ["randlora", "lora"])
def test_no_matching_layer_leaves_nothing_behind(text_config, method):
    text_config.method = MethodConfig(name=method, r=4, target_modules=["nowhere"])
    with pytest.raises(LayerError, match="nowhere"):
        train(text_config)
    assert not Path(text_config.output).exists()


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(text_config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="model"):
        train(replace(text_config, model=str(tmp_path / "empty")))
    assert not Path(text_config.output).exists()


def test_a_model_of_another_kind_is_refused(image_config, bert):
    with pytest.raises(ConfigError, match="expected a CLIP model for image-text"):
        train(replace(image_config, model=str(bert)))


def test_evaluating_a_damaged_or_unfinished_run_is_a_checkpoint_error(text_config, tmp_path):
    with pytest.raises(CheckpointError, match=r"record\.json"):
        evaluate(tmp_path)
    text_config.method.name = "head"
    text_config.optimization.max_steps = 1
    train(text_config)
    weights = Path(text_config.output) / "adapter" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"trained\.safetensors"):
        evaluate(text_config.output)


@pytest.mark.parametrize("method", ["randlora", "lora", "full"])
def test_an_adapter_of_another_base_model_is_refused(text_config, bert, tmp_path, method):
    text_config.method = MethodConfig(name=method, r=4)
    text_config.optimization.max_steps = 1
    train(text_config)
    wider = shutil.copytree(bert, tmp_path / "wider")
    config = BertConfig.from_pretrained(bert, hidden_size=24)
    BertModel(config).save_pretrained(wider)
    with pytest.raises(CheckpointError) as caught:
        evaluate(text_config.output, ["--model", str(wider)])
    assert "\n" not in str(caught.value)


def test_evaluation_can_take_other_data_but_not_another_method(text_config, texts):
    text_config.optimization.max_steps = 1
    train(text_config)
    lines = (texts / "test.csv").read_text(encoding="utf-8").splitlines()
    (texts / "one.csv").write_text("\n".join(lines[:2]), encoding="utf-8")
    assert evaluate(text_config.output, ["--data.test", str(texts / "one.csv")])["accuracy"] in (0.0, 100.0)
    with pytest.raises(ConfigError, match="the run fixes the rest"):
        evaluate(text_config.output, ["--method.r", "8"])


def test_evaluation_says_that_the_runs_data_have_changed(text_config, texts, caplog):
    text_config.data.validation = 0.25
    text_config.optimization.max_steps = 1
    train(text_config)
    caplog.clear()
    for split in ("test", "validation"):
        evaluate(text_config.output, split=split)
    evaluate(text_config.output, ["--data.test", str(texts / "train.csv")])
    assert "no longer those of the run" not in caplog.text
    for name in ("train.csv", "test.csv"):
        lines = (texts / name).read_text(encoding="utf-8").splitlines()
        (texts / name).write_text("\n".join(lines[:-2]) + "\n", encoding="utf-8")
    for split, more in (("test", "since"), ("validation", "since, and examples that it was trained on may be among t")):
        caplog.clear()
        evaluate(text_config.output, split=split)
        assert f"data.{split}: no longer those of the run: their content has changed {more}" in caplog.text
        assert ("among them" in caplog.text) == (split == "validation")


def test_the_record_is_plain_json(text_config):
    text_config.optimization.max_steps = 1
    train(text_config)
    content = json.loads((Path(text_config.output) / "record.json").read_text(encoding="utf-8"))
    assert content["versions"].keys() == {"python", "torch", "transformers", "peft", "accelerate", "randlora"}
    assert content["hardware"]["precision"] == "fp32"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_leaves_nothing_behind(image_config, images, workers):
    broken = images / "train" / "red" / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    image_config.optimization.dataloader_workers = workers
    with pytest.raises(DataError, match=r"red/3\.png\): expected an image") as caught:
        train(image_config)
    assert "Traceback" not in str(caught.value)
    assert not Path(image_config.output).exists()


def test_a_full_disk_is_an_output_error_and_leaves_nothing_behind(text_config):
    text_config.method.name = "full"
    text_config.optimization.max_steps = 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OutputError, match="make room"):
            train(text_config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not Path(text_config.output).exists()


class Hub:
    """Stands in for the hub's client."""

    works = False
    uploaded: list[str] = []  # noqa: RUF012

    def create_repo(self, name, *, exist_ok):
        if not self.works:
            raise ConnectionError("no route")

    def upload_folder(self, *, repo_id, folder_path):
        self.uploaded.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_an_upload_that_fails_leaves_the_run_finished_and_is_tried_again(text_config, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    text_config.optimization.max_steps, text_config.push_to_hub = 1, "me/adapter"
    with pytest.raises(OutputError, match=r"push_to_hub: .*'me/adapter'.*no route.*the same command again uploads"):
        train(text_config)
    record = Record.load(Path(text_config.output))
    Hub.works = True
    assert train(text_config) == record
    assert Hub.uploaded == [("me/adapter", ["README.md", "adapter_config.json", "adapter_model.safetensors"])]


def test_on_a_machine_of_many_gpus_one_process_uses_one(text_config, tmp_path, monkeypatch, caplog):
    """The Trainer would spread batches over all, each eight times as large, and end in an eighth of the steps."""
    expected = train(text_config)
    own = TrainingArguments.__dict__["_setup_devices"].func

    def of_eight(arguments):
        device = own(arguments)
        arguments._n_gpu = 8
        return device

    patched = functools.cached_property(of_eight)
    patched.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", patched)
    run_arguments._tell.cache_clear()
    record = train(replace(text_config, output=str(tmp_path / "of eight")))
    assert record.history == expected.history
    assert record.metrics["test_accuracy"] == expected.metrics["test_accuracy"]
    assert caplog.text.count("one of 8 GPUs is used; for all: accelerate launch") == 1


def test_a_gpu_that_emulates_bf16_is_told_of_once(text_config, tmp_path, monkeypatch, caplog):
    cuda = SimpleNamespace(
        is_available=lambda: True, is_bf16_supported=lambda *, including_emulation: including_emulation
    )
    monkeypatch.setattr(run_arguments, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: setattr(self, "_n_gpu", 1))  # without the GPU
    text_config.optimization.precision, text_config.optimization.device = "bf16", "auto"
    task = task_of(text_config, ["a", "b"])
    run_arguments._tell.cache_clear()
    for _ in range(2):
        run_arguments.training_arguments(text_config, task, tmp_path)
    assert caplog.text.count("optimization.precision fp16 is faster") == 1


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ("text_config", "randlora"),
        ("image_config", "randlora"),
        ("sft_config", "randlora"),
        ("text_config", "autolora"),
    ],
)
def test_a_model_is_gone_before_the_next_is_loaded(request, config, method, tmp_path, monkeypatch):
    """Of an earlier run of this process, and of a search for ranks."""
    config = request.getfixturevalue(config)
    config.method = MethodConfig(name=method, r=2)
    config.data.validation = 0.3
    models, alive, own = [], [], TASKS[config.task].load_model

    def load_model(task, base):
        alive.extend(model() is not None for model in models)
        own(task, base)
        models.append(weakref.ref(task.backbone))

    monkeypatch.setattr(TASKS[config.task], "load_model", load_model)
    gc.disable()
    try:
        for name in "ab":
            train(replace(config, output=str(tmp_path / name)))
    finally:
        gc.enable()
    assert len(models) == (4 if method == "autolora" else 2)
    assert not any(alive)
