"""One pair of dense bases in memory, however many layers, adapters and models use it; never in a checkpoint."""

import copy

import peft
import pytest
import torch
from torch import nn

from networks import FAMILIES, Net, random_config, rows
from randlora import RandLoraConfig
from randlora.methods.randlora import RandLoraLayer

DENSE = ("uniform", "normal", "ternary")


def _net(**options):
    return peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"], **options))


def _pointers(*models):
    """Where A and B of every layer and adapter lie."""
    found = set()
    for model in models:
        for layer in model.modules():
            if isinstance(layer, RandLoraLayer):
                for name in layer.randlora_bases:
                    tensors = layer.form(name, torch.device("cpu"), torch.float32)
                    found.add(tuple(t.data_ptr() for t in tensors))
    return found


@pytest.mark.parametrize("bases", DENSE)
def test_layers_adapters_and_models_share_one_pair(bases):
    first, second = _net(bases=bases, seed=41), _net(bases=bases, seed=41, r=2)
    first.add_adapter("larger", random_config(bases=bases, seed=41, r=9, target_modules=["a", "b"]))
    assert len(_pointers(first, second, copy.deepcopy(first))) == 1
    first.add_adapter("seed of its own", random_config(bases=bases, seed=42, target_modules=["a"]))
    assert len(_pointers(first, second)) == 2


@pytest.mark.parametrize("bases", FAMILIES)
def test_no_basis_is_a_parameter_a_buffer_or_in_the_state_dict(bases):
    model = _net(bases=bases)
    adapter = {name for name in model.state_dict() if "base_layer" not in name}
    assert {name.split(".")[-3] for name in adapter} == {"randlora_lambda", "randlora_gamma"}
    assert not list(model.buffers())


@pytest.mark.parametrize("bases", DENSE)
@pytest.mark.parametrize("strategy", ["folded", "factored"])
def test_growing_between_forward_and_backward_changes_nothing(bases, strategy):
    def gradients(between):
        model = _net(bases=bases, strategy=strategy, seed=43)
        loss = model(rows()).square().sum()
        between(model)
        loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    def grow(model):
        before = _pointers(model)
        peft.get_peft_model(
            nn.Sequential(nn.Linear(60, 70)), RandLoraConfig(bases=bases, seed=43, target_modules=["0"])
        )
        assert not before & _pointers(model)

    still = gradients(lambda _: None)
    for got, wanted in zip(gradients(grow), still, strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_second_adapter_after_training():
    model = _net(bases="uniform")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model(rows()).square().sum().backward()
    optimizer.step()
    trained = model(rows())
    model.add_adapter("second", random_config(bases="uniform", r=11, target_modules=["a", "b"]))
    assert torch.equal(model(rows()), trained)
    model.set_adapter("second")
    model(rows()).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert name.endswith("second.weight")
            assert parameter.grad is not None
    model.set_adapter("default")
    assert torch.equal(model(rows()), trained)


def test_a_deleted_adapter_lets_its_bases_go():
    model = _net(bases="uniform", seed=45)
    model.add_adapter("second", random_config(bases="normal", seed=45, target_modules=["a"]))
    layer = model.base_model.model.a
    assert set(layer.randlora_bases) == {"default", "second"}
    model.delete_adapter("second")
    assert set(layer.randlora_bases) == {"default"}
