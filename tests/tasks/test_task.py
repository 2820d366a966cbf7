import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from randlora.errors import ConfigError
from randlora.tasks.classification.metrics import score_function
from randlora.tasks.classification.task import classification_loss
from randlora.tasks.sources import locate


def test_the_loss_is_the_mean_over_the_whole_accumulated_batch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    whole = classification_loss({"logits": logits}, labels)
    parts = [classification_loss({"logits": logits[part]}, labels[part], 6) for part in (slice(4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), whole)


def test_accuracy_is_in_percent():
    prediction = SimpleNamespace(predictions=np.eye(4), label_ids=np.array([0, 1, 2, 0]))
    assert score_function(["accuracy"])(prediction) == {"accuracy": 75.0}


def test_locate_finds_a_folder_of_an_installed_package():
    assert locate("package:peft/tuners").endswith("peft/tuners")
    assert locate("some/hub-id") == "some/hub-id"


def test_locate_asks_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "onnx").mkdir(parents=True)
    (tmp_path / "model" / "dead.md").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("model")
    assert locate("~/model") == str(tmp_path / "model")
    assert locate("link") == "link"
    (tmp_path / "file").write_text("weights")
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "model" / "config.json")
    wrong = {"file": "a file", "dead": "a link to nothing", "circle": "symbolic links", "model": "config.json, a pipe"}
    for name, message in wrong.items():
        for path in (name, f"./{name}"):
            with pytest.raises(ConfigError, match=f"^model: expected .*{message}"):
                locate(path)


@pytest.mark.parametrize("model", ["package:no_such_package/model", "package:peft/no_such_folder", "./nowhere"])
def test_locate_names_what_is_missing(model):
    with pytest.raises(ConfigError, match=r"^model: expected"):
        locate(model)
