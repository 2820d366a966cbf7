"""The file of trained parameters: what comes back, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from randlora.errors import CheckpointError
from randlora.training.run.weights import FILE_NAME, load_trained, save_trained


def model(side=3, frozen=True):
    torch.manual_seed(side)
    net = nn.Sequential(nn.Linear(side, 2), nn.Linear(2, 1))
    net[0].weight.requires_grad_(not frozen)
    return net


def test_what_is_trained_comes_back_and_the_rest_is_left_alone(tmp_path):
    saved, fresh = model(), model()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(1)
    save_trained(saved, tmp_path)
    assert set(load_file(tmp_path / FILE_NAME)) == {"0.bias", "1.weight", "1.bias"}
    load_trained(fresh, tmp_path)
    assert torch.equal(fresh[0].weight, model()[0].weight)
    assert torch.equal(fresh[0].bias, saved[0].bias)
    assert torch.equal(fresh[1].weight, saved[1].weight)


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        ({}, {"frozen": False}, "expected the trained parameters of this model, got no '0.weight'"),
        ({"frozen": False}, {}, "got an additional '0.weight'"),
        ({"frozen": False}, {"frozen": False, "side": 1}, r"'0.weight': expected shape \(2, 1\), got \(2, 3\)"),
        ({"frozen": False, "side": 1}, {"frozen": False}, r"'0.weight': expected shape \(2, 3\), got \(2, 1\)"),
    ],
)
def test_another_models_file_is_refused(saved, loaded, message, tmp_path):
    save_trained(model(**saved), tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_trained(model(**loaded), tmp_path)


def test_a_link_in_place_of_the_unfinished_file_is_not_written_through(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{FILE_NAME}.tmp").symlink_to(other)
    save_trained(model(), tmp_path / "run")
    assert other.read_text() == "mine"
    load_trained(model(), tmp_path / "run")


def test_numbers_that_are_not_finite_and_a_file_that_is_none(tmp_path):
    save_file({"0.bias": torch.tensor([1.0, float("nan")])}, tmp_path / FILE_NAME)
    with pytest.raises(CheckpointError, match="finite numbers"):
        load_trained(model(), tmp_path)
    (tmp_path / FILE_NAME).write_text("none")
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        load_trained(model(), tmp_path)
