"""Image classification: vision models of several architectures, their preprocessing, heads and running statistics."""

import json

import pytest
import torch
import transformers
from peft import PeftModel

from randlora.errors import ConfigError
from randlora.tasks import ImageData
from randlora.tasks.classification.image import ImageClassification
from randlora.tasks.sources import BaseModel
from randlora.training import MethodConfig, OptimizationConfig, TrainConfig, evaluate, train
from tiny import task_of

TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
ARCHITECTURES = {
    "vit": transformers.ViTConfig(**TOWER, intermediate_size=32),
    "dinov2": transformers.Dinov2Config(**TOWER),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=16),
    "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
}
PREPROCESSING = {
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "image_processor_type": "ViTImageProcessor",
}


@pytest.fixture
def vision(tmp_path):
    """Write a vision model of an architecture with its preprocessing; without a head for the classes of the images."""

    def write(name, **options):
        folder = tmp_path / name
        torch.manual_seed(0)
        config = type(ARCHITECTURES[name])(**{**ARCHITECTURES[name].to_dict(), **options})
        transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def config(images, tmp_path):
    def make(model, **method):
        return TrainConfig(
            task="image-classification",
            model=str(model),
            output=str(tmp_path / "run"),
            method=MethodConfig(**{"r": 4, **method}),
            data=ImageData(train=str(images / "train"), test=str(images / "test")),
            optimization=OptimizationConfig(
                learning_rate=1e-2, epochs=4, batch_size=8, eval_batch_size=8, precision="fp32", device="cpu"
            ),
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", ["randlora", "lora", "full", "head"])
def test_a_vit_learns_colours_and_evaluates_to_its_record(vision, config, method):
    run = config(vision("vit"), name=method)
    record = train(run)
    assert record.after > record.before
    assert record.facts == {"label_names": ["dark_blue", "green", "red"]}
    assert record.head_parameters == 3 * 16 + 3
    assert evaluate(run.output)["accuracy"] == record.after


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["dinov2", "convnext", "resnet"])
@pytest.mark.parametrize("method", ["randlora", "full"])
def test_every_architecture_evaluates_to_its_record(vision, config, architecture, method):
    """ResNet's running statistics among them, which no adapter holds."""
    targets = [r".*convolution"] if architecture == "resnet" and method == "randlora" else None
    run = config(vision(architecture), name=method, target_modules=targets and targets[0])
    run.optimization.max_steps = 3
    record = train(run)
    assert evaluate(run.output) == pytest.approx({"accuracy": record.after, "loss": record.metrics["test_loss"]})


def test_running_statistics_stay_those_of_the_model(vision, config):
    task = task_of(config(vision("resnet")), ["a", "b"])
    before = {name: value.clone() for name, value in task.backbone.named_buffers()}
    task.wrap(task.backbone, train_head=False).train()(torch.randn(4, 3, 16, 16))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in task.backbone.named_buffers())


def test_the_head_follows_the_names_of_the_classes(vision, config):
    names = {"id2label": {0: "red", 1: "green", 2: "dark_blue"}, "label2id": {"red": 0, "green": 1, "dark_blue": 2}}
    folder = vision("dinov2", **names)
    head = transformers.AutoModelForImageClassification.from_pretrained(folder).classifier.weight
    task = task_of(config(folder), ["dark_blue", "green", "red"])
    assert torch.equal(task.backbone.classifier.weight, head.flip(0))
    assert torch.count_nonzero(task_of(config(folder), ["a", "b"]).backbone.classifier.bias) == 0


def test_a_model_for_images_of_another_size_is_refused(vision, config):
    folder = vision("vit", image_size=24)
    with pytest.raises(ConfigError, match=r"^model: expected a model that takes images of the size .* 16 x 16 pixels"):
        task_of(config(folder), ["a", "b"])


def test_a_model_without_images_is_refused(bert, config):
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json"):
        task_of(config(bert), ["a", "b"])


@pytest.mark.slow
def test_the_adapter_fits_the_plain_model(vision, config):
    folder = vision("vit")
    run = config(folder)
    run.optimization.max_steps = 1
    train(run)
    names = {"id2label": dict(enumerate("abc")), "label2id": {name: index for index, name in enumerate("abc")}}
    plain = transformers.AutoModelForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **names)
    model = PeftModel.from_pretrained(plain, f"{run.output}/adapter").eval()
    task = ImageClassification(run.data, seed=0)
    task.load_model(BaseModel(str(folder)))
    pixels = torch.stack([row["pixel_values"] for row in task.dataset("test")])
    with torch.no_grad():
        share = 100 * (model(pixel_values=pixels).logits.argmax(1) == torch.tensor(task.examples("test").labels))
    assert share.float().mean().item() == pytest.approx(evaluate(run.output)["accuracy"])
