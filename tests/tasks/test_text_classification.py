"""Which head a text classifier starts with."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from randlora.errors import ConfigError
from randlora.training.methods import task_of


@pytest.fixture(params=["model", "mean"])
def classifier(request, text_config, tmp_path):
    """Config of a model that has a head for two classes, and that head's weight."""
    task = task_of(replace(text_config, pooling=request.param), ["pay", "lost"])
    folder = tmp_path / "classifier"
    folder.mkdir()
    (task.backbone.save_merged if request.param == "mean" else task.backbone.save_pretrained)(folder)
    task.tokenizer.save_pretrained(folder)
    return replace(text_config, pooling=request.param, model=str(folder)), task.backbone.classifier.weight


def test_a_head_for_as_many_classes_is_kept(classifier):
    config, head = classifier
    assert torch.equal(task_of(config, ["yes", "no"]).backbone.classifier.weight, head)


def test_a_head_for_other_classes_starts_anew(classifier):
    config, _ = classifier
    assert task_of(config, ["a", "b", "c"]).backbone.classifier.weight.shape == (3, 16)


def test_weights_that_contradict_the_config_are_refused(classifier, tmp_path):
    path = tmp_path / "classifier" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 30}))
    with pytest.raises(
        ConfigError, match=r"^model: expected weights of the shapes .* another shape of \S*intermediate"
    ):
        task_of(classifier[0], ["a", "b"])


def test_a_damaged_head_is_refused(text_config, bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "merged")
    (folder / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"^model: expected a model whose head can be loaded"):
        task_of(replace(text_config, pooling="mean", model=str(folder)), ["a", "b"])
