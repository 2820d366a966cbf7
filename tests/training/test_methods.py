import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, BertModel, CLIPModel

from randlora.tasks import ImageTextData, TextData
from randlora.tasks.classification.text_options import regression_loss
from randlora.training.config import MethodConfig, OptimizationConfig, TrainConfig, resolve
from randlora.training.methods import build, is_head
from randlora.training.run.arguments import training_arguments
from randlora.training.run.progress import Progress
from randlora.training.run.trainer import RunTrainer
from tiny import dataset_of, task_of


@pytest.fixture
def task(bert):
    return task_of(TrainConfig(model=str(bert), data=TextData(max_length=16)), ["a", "b"])


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def resolved(**options):
    return resolve(TrainConfig(method=MethodConfig(**options))).method


@pytest.mark.parametrize("name", ["randlora", "lora"])
def test_all_linear_means_the_backbone_without_the_head(task, name):
    model = build(task, resolved(name=name, r=4))
    layers = {key.split(".base_layer")[0] for key, _ in model.named_parameters() if ".base_layer.weight" in key}
    assert len(layers) == 2 * 6 + 1  # six linears a block, and the pooler
    assert not any("classifier" in layer for layer in layers)
    assert {key for key in trained(model) if is_head(key, task)} == {
        f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")
    }


def test_modules_are_chosen_by_list_and_regular_expression(task):
    model = build(task, resolved(r=4, target_modules=["query", "key"], exclude_modules=r".*layer\.0\..*"))
    layers = {key.split(".base_layer")[0] for key, _ in model.named_parameters() if ".base_layer.weight" in key}
    assert sorted(layer.split("encoder.")[1] for layer in layers) == [
        "layer.1.attention.self.key",
        "layer.1.attention.self.query",
    ]


def test_full_trains_everything_and_head_the_head_only(task):
    model = build(task, resolved(name="full"))
    assert trained(model) == {name for name, _ in model.named_parameters()}
    assert trained(build(task, resolved(name="head"))) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["randlora", "lora", "full", "head"])
@pytest.mark.parametrize("kind", ["model", "mean", "clip"])
def test_a_classifier_whose_file_has_16_bits_is_trained_in_float32(request, tmp_path, kind, name, dtype):
    source = request.getfixturevalue("clip" if kind == "clip" else "bert")
    shutil.copytree(source, tmp_path / "model")
    architecture = CLIPModel if kind == "clip" else BertModel
    architecture.from_pretrained(source, dtype=dtype).save_pretrained(tmp_path / "model")
    config = TrainConfig(model=str(tmp_path / "model"), data=TextData(max_length=16))
    if kind == "clip":
        config = replace(config, task="image-text", data=ImageTextData())
    else:
        config.data.pooling = kind
    task = task_of(config, ["a", "b"])
    model = build(task, resolved(name=name, r=4))
    assert {part.dtype for part in model.parameters()} == {torch.float32}


def test_the_head_has_a_learning_rate_of_its_own(task, tmp_path):
    config = resolve(TrainConfig(optimization=OptimizationConfig(device="cpu", precision="fp32")))
    model = build(task, resolved(r=4))
    config.optimization.head_learning_rate = 0.5
    trainer = RunTrainer(model=model, args=training_arguments(config, task, tmp_path))
    trainer.begin(Progress("now"), is_head=lambda name: is_head(name, task), optimization=config.optimization)
    groups = trainer.create_optimizer().param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_name = {name: rates[id(part)] for name, part in model.named_parameters() if part.requires_grad}
    assert {name for name, rate in by_name.items() if rate == 0.5} == {n for n in by_name if is_head(n, task)}
    assert set(by_name.values()) == {0.5, 3e-3}


def test_a_batch_is_padded_to_its_longest_text(task):
    rows = dataset_of(task, "train", ["where is my card", "help", "card " * 40], [1, 0, 1])
    assert task.collate([rows[0], rows[1]])["input_ids"].shape == (2, 6)
    batch = task.collate([rows[1], rows[2]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 16)  # data.max_length
    assert torch.equal(batch["labels"], torch.tensor([0, 1]))


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(bert, tmp_path):
    model = shutil.copytree(bert, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(model)
    task = task_of(TrainConfig(model=str(model)), ["a", "b"])
    assert task.tokenizer.pad_token == "</s>"  # noqa: S105 - no secret
    assert task.backbone.config.pad_token_id == 3


def test_of_numbers_to_predict_minus_100_counts_like_others(task, tmp_path):
    config = resolve(TrainConfig(optimization=OptimizationConfig(device="cpu", precision="fp32")))
    arguments = training_arguments(config, task, tmp_path)
    trainer = RunTrainer(model=task.backbone, args=arguments, compute_loss_func=regression_loss)
    batches = [{"labels": torch.tensor([-100.0, 1.0])}, {"labels": torch.tensor([-100.0])}]
    assert trainer._get_num_items_in_batch(batches, torch.device("cpu")) == 3
