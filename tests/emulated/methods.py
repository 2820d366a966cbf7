"""Every method on every kind of layer on a device that is not the CPU: nothing that it makes or keeps is left behind.

The device is emulated (device.py): how fast it is, and what CUDA's own kernels compute, is not asked.
"""

import pytest
import torch

from adapter.test_pairs import adapted
from emulated.device import emulated_device
from every_method import MERGEABLE
from kinds import KINDS


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def outcome(model, x):
    """Output and gradients, on the CPU."""
    output = model(x)
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(tensor.device == x.device for tensor in (output, *gradients.values()))
    return output.detach().cpu(), {name: gradient.cpu() for name, gradient in gradients.items()}


@pytest.mark.parametrize("method", MERGEABLE)
def test_it_gives_what_it_gives_on_the_cpu(method, kind):
    x = torch.cat([kind.batch(torch.float64)] * 9)
    wanted, wanted_gradients = outcome(adapted(method, kind, torch.float64), x)
    model = adapted(method, kind, torch.float64)
    with emulated_device() as device:
        output, gradients = outcome(model.to(device), x.to(device))
        torch.testing.assert_close(output, wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-7, atol=1e-7)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(x.to(device)).detach().cpu(), wanted, rtol=1e-7, atol=1e-7)


def test_tensors_of_two_devices_do_not_meet():
    with emulated_device() as device, pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=device) + torch.ones(2)
