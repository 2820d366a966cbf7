import peft
import pytest
import torch
from torch import nn

from randlora.bases import PeftBases
from sizes import sizes

CPU = torch.device("cpu")
KINDS = {"dense": {}, "sparse": {"sparse": True}, "very_sparse": {"very_sparse": True}}


class _Block(nn.Module):
    def __init__(self, *shapes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in shapes)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def _peft_layers(r, seed, kind, shapes):
    config = peft.RandLoraConfig(r=r, projection_prng_key=seed, target_modules="all-linear", **KINDS[kind])
    model = peft.get_peft_model(nn.Sequential(_Block(*shapes), nn.Linear(shapes[-1][1], 2)), config)
    return [module for module in model.modules() if isinstance(module, peft.tuners.randlora.Linear)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", [[(12, 20)], [(20, 13), (13, 13)], [(6, 24), (24, 6)], [(9, 5), (5, 31), (31, 2)]])
@pytest.mark.parametrize("r", [1, 4, 7])
def test_the_draw_is_what_peft_draws(kind, shapes, r):
    layers = _peft_layers(r, 11, kind, shapes)
    sides = [(layer.out_features, layer.in_features) for layer in layers]
    largest = [max(side[i] for side in sides) for i in (0, 1)]
    # PEFT draws in bfloat16 where the machine has it; the draw is CPU code, so every machine of today does.
    bases = PeftBases(11, r, max(largest), min(largest), kind, "bfloat16")
    A, B = bases.pair
    for layer in layers:
        theirs = layer.randlora_A["default"], layer.randlora_B["default"]
        assert torch.equal(A.float(), theirs[0].float())
        assert torch.equal(B.float(), theirs[1].float())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_draw_dtype_is_kept(dtype):
    bases = PeftBases(0, 4, 20, 12, "dense", dtype)
    assert bases.pair[0].dtype == getattr(torch, dtype)
    wide = bases.form(sizes(4, 12, 20), CPU, torch.float64)
    assert torch.equal(wide[0], bases.pair[0][:, 0].double())
    bases.form(sizes(4, 12, 20), CPU, torch.bfloat16)
    # After a narrower cast in between, still the numbers as drawn.
    assert all(torch.equal(a, b) for a, b in zip(bases.form(sizes(4, 12, 20), CPU, torch.float64), wide, strict=True))


def test_pairing_of_columns_is_pefts():
    # PEFT flattens A·λ over (r, n) and B over (n, r): hidden column p joins row p // n of A with basis p % n.
    r, small, large = 3, 7, 10
    bases = PeftBases(5, r, 16, 12)
    A, B = bases.form(sizes(r, small, large), CPU, torch.float32)
    full_a, full_b = (t.float() for t in bases.pair)
    assert torch.equal(A, full_a[:, 0, :small])
    assert torch.equal(B, full_b[:large, :3].reshape(large, 9))


def test_fingerprints_tell_draws_apart():
    draws = [
        PeftBases(0, 4, 20, 12),
        PeftBases(1, 4, 20, 12),
        PeftBases(0, 4, 20, 12, "sparse"),
        PeftBases(0, 2, 20, 12),
    ]
    assert len({bases.fingerprint() for bases in draws}) == 4
    assert PeftBases(0, 4, 20, 12).fingerprint() == draws[0].fingerprint()
