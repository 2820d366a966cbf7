from types import SimpleNamespace

import numpy as np
import pytest
import torch

from randlora.errors import ConfigError
from randlora.tasks import accuracy, classification_loss
from randlora.tasks.sources import locate


def test_the_loss_is_the_mean_over_the_whole_accumulated_batch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    whole = classification_loss({"logits": logits}, labels)
    parts = [classification_loss({"logits": logits[part]}, labels[part], 6) for part in (slice(4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), whole)


def test_accuracy_is_in_percent():
    prediction = SimpleNamespace(predictions=np.eye(4), label_ids=np.array([0, 1, 2, 0]))
    assert accuracy(prediction) == {"accuracy": 75.0}


def test_locate_finds_a_folder_of_an_installed_package():
    assert locate("package:peft/tuners").endswith("peft/tuners")
    assert locate("some/hub-id") == "some/hub-id"


@pytest.mark.parametrize("model", ["package:no_such_package/model", "package:peft/no_such_folder", "./nowhere"])
def test_locate_names_what_is_missing(model):
    with pytest.raises(ConfigError, match=r"^model: expected"):
        locate(model)
