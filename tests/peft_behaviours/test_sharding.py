"""FSDP: the outputs and gradients of a sharded model are those of the whole one."""

import pytest
import torch
from peft.utils.other import fsdp_auto_wrap_policy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from every_method import adapted
from networks import llama, token_ids
from processes import Child
from randlora.adapter.trained import TrainedTensor
from randlora.errors import UpdateError

LAYERS = {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.TransformerEncoderLayer(24, 2, 40, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.block(x)


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def squared_gradients(model, inputs):
    output = model(inputs)
    output = getattr(output, "logits", output)
    output.square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None and p.requires_grad]
    return output.detach(), sum(gradient.double().square().sum() for gradient in gradients)


def shard(model, block, monkeypatch, **options):
    """Sharded as accelerate does with PEFT's policy: every block, and every module of trained tensors in it."""
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", block.__name__)
    policy = fsdp_auto_wrap_policy(model)
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"), **options)


@pytest.mark.parametrize("use_orig_params", [False, True])
@pytest.mark.usefixtures("one_process")
def test_with_pefts_wrap_policy(method, use_orig_params, monkeypatch):
    expected = squared_gradients(adapted(method, llama(), **LAYERS), token_ids())
    model = shard(adapted(method, llama(), **LAYERS), LlamaDecoderLayer, monkeypatch, use_orig_params=use_orig_params)
    torch.testing.assert_close(squared_gradients(model, token_ids()), expected)


@pytest.mark.usefixtures("one_process")
def test_with_fsdp2(any_method):
    """Every block a unit, and the whole: parameters are DTensors."""
    expected = squared_gradients(adapted(any_method, llama(), **LAYERS), token_ids())
    model, mesh = adapted(any_method, llama(), **LAYERS), init_device_mesh("cpu", (1,))
    for part in [part for part in model.modules() if isinstance(part, LlamaDecoderLayer)]:
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    output = model(token_ids()).logits
    output.square().mean().backward()
    gradients = [p.grad.full_tensor() for p in model.parameters() if p.grad is not None and p.requires_grad]
    found = output.detach(), sum(gradient.double().square().sum() for gradient in gradients)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("use_orig_params", [False, True])
@pytest.mark.usefixtures("one_process")
def test_attention_in_a_sharded_block(use_orig_params, monkeypatch):
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    options = {"target_modules": ["self_attn", "linear1"]}
    expected = squared_gradients(adapted("randlora", Attention(), **options).train(), x)
    model = adapted("randlora", Attention(), **options).train()
    model = shard(model, nn.TransformerEncoderLayer, monkeypatch, use_orig_params=use_orig_params)
    torch.testing.assert_close(squared_gradients(model, x), expected)


@pytest.mark.usefixtures("one_process")
def test_attention_that_is_a_shard_of_its_own_is_refused(monkeypatch):
    model = adapted("randlora", Attention(), target_modules=["self_attn"]).train()
    model = shard(model, nn.MultiheadAttention, monkeypatch, use_orig_params=True)
    with pytest.raises(UpdateError, match=r"MultiheadAttention.*leave its class out of the wrap policy"):
        model(torch.zeros(2, 5, 24))


def test_tensors_that_hooks_gather_around_a_call_as_zero_3_does(any_method):
    model = adapted(any_method, llama(), **LAYERS)
    expected = squared_gradients(model, token_ids())
    model.zero_grad()
    whole = {}

    def gather(module, _):
        module.weight.data = whole[module]

    def release(module, *_):
        module.weight.data = torch.full_like(whole[module], torch.nan)

    for module in model.modules():
        if isinstance(module, TrainedTensor):
            whole[module] = module.weight.data
            module.register_forward_pre_hook(gather)
            module.register_forward_hook(release)
            release(module)
    torch.testing.assert_close(squared_gradients(model, token_ids()), expected)


def on_one_of_two(rank, store, policy_class):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    whole = adapted("randlora", llama(), **LAYERS)
    output, squares = squared_gradients(whole, token_ids())
    with pytest.MonkeyPatch.context() as patch:
        model = shard(adapted("randlora", llama(), **LAYERS), policy_class, patch, use_orig_params=False)
    found, part = squared_gradients(model, token_ids())
    torch.distributed.all_reduce(part)
    torch.testing.assert_close((found, part), (output, squares))
    torch.distributed.destroy_process_group()


ONE_OF_TWO = f"""
import runpy, sys
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
runpy.run_path({__file__!r})["on_one_of_two"](int(sys.argv[1]), sys.argv[2], LlamaDecoderLayer)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    children = [Child(ONE_OF_TWO, [rank, tmp_path / "store"], folder=tmp_path) for rank in range(2)]
    assert [child.wait() for child in children] == [0, 0], [child.errors for child in children]
