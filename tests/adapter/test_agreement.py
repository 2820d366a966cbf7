"""Every method on every kind of layer: one adapter in all its forms gives one output, or is refused whole.

What works is the table of docs/layers.md, which is compared with the truth here.
"""

import copy
import re
import warnings
from pathlib import Path

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from every_method import METHODS, config, fill, layers
from kinds import KINDS, Kind, Packed, Sum
from randlora import RandLoraConfig, export_lora
from randlora.adapter.weights import read_weight
from randlora.errors import CheckpointError, LayerError, RandLoraError
from randlora.methods.randlora.convert import convert

# Two layers deep, sums of up to 128 float32 products: as a share of the largest output.
NEAR = 2 * 128 * torch.finfo(torch.float32).eps
WIDTH = 8
"""The smaller side of every linear layer here, and so the full rank of a LoRA."""


def quantized():
    """Linear layers side by side, in torchao's int8 by rows, so that the error of one rounding is known."""
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = Sum(nn.Linear(WIDTH, 13), nn.Linear(WIDTH, WIDTH, bias=False))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


LAYERS = {
    "Linear": Kind(
        lambda: nn.Sequential(nn.Linear(WIDTH, 13), nn.Tanh(), nn.Linear(13, WIDTH, bias=False)),
        (5, WIDTH),
        options={"target_modules": ["0", "2"]},
    ),
    "Conv1D": Kind(
        lambda: nn.Sequential(Conv1D(13, WIDTH), nn.Tanh(), Conv1D(WIDTH, 13)),
        (5, WIDTH),
        options={"target_modules": ["0", "2"]},
    ),
    "int8 Linear": Kind(quantized, (5, WIDTH)),
    "GPTQ Linear": Kind(lambda: Sum(Packed(nn.Linear(WIDTH, 13)), Packed(nn.Linear(WIDTH, 5))), (5, WIDTH)),
    "Conv1d": KINDS["conv1d"],
    "Conv2d": KINDS["conv2d"],
    "Conv3d": KINDS["conv3d"],
    "Embedding": KINDS["embedding"],
    "MultiheadAttention": KINDS["attention"],
    "experts": KINDS["experts"],
}
ROWS = {
    "`randlora`, `structured`": lambda **options: config("randlora", **options),
    "`randlora`, `uniform`": lambda **options: config("randlora_uniform", **options),
    "`randlora`, `peft`": lambda **options: RandLoraConfig(**{"r": 4, "alpha": 2.0, "bases": "peft", **options}),
    **{
        f"`{name}`": lambda name=name, **options: config(name, **options)
        for name in METHODS
        if name not in ("randlora", "randlora_uniform")
    },
}


def documented():
    """(method, kind of layer) -> the cell of the table in docs/layers.md."""
    text = (Path(__file__).parents[2] / "docs" / "layers.md").read_text(encoding="utf-8")
    lines = re.search(r"^\| method \|.*\n\|[-|: ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    head = [cell.strip(" `") for cell in lines[0].splitlines()[0].strip("|").split("|")][1:]
    cells = {}
    for line in lines[1].splitlines():
        name, *row = (cell.strip() for cell in line.strip("|").split("|"))
        cells |= {(name, kind): cell for kind, cell in zip(head, row, strict=True)}
    return cells


def own_config(method, kind):
    return ROWS[method](**{"target_modules": [str(i) for i in range(9)], **kind.options})


def assert_near(got, wanted, tolerance=None):
    error = (got - wanted).abs()
    assert (error <= (NEAR * wanted.abs().max() if tolerance is None else tolerance)).all(), error.max()


def refused(call, error=RandLoraError):
    """Whether a call is refused, in one line."""
    try:
        call()
    except error as refusal:
        message = str(refusal)
    else:
        return False
    assert "\n" not in message
    return True


def roundings(model, x):
    """By how much one rounding of each weight to int8 can move the outputs: half a step of its row, for every input."""
    steps = [read_weight(layer.get_base_layer()).abs().amax(1) / 127 for layer in layers(model)]
    return x.abs().sum(1, keepdim=True) * torch.cat(steps) / 2


def merges(model, x, expected, kind_name):
    """M where the merged model agrees, R where it agrees up to the rounding of the format, nothing where refused."""
    state = copy.deepcopy(model.state_dict())
    if refused(model.merge_adapter):
        assert not any(layer.merged for layer in layers(model))
        assert torch.equal(model(x), expected)
        return ""
    rounds = kind_name == "int8 Linear"
    near = NEAR * expected.abs().max()
    merged_bound = near + (roundings(model, x) if rounds else 0)
    assert_near(model(x), expected, merged_bound)
    unloaded = copy.deepcopy(model).merge_and_unload()
    assert torch.equal(unloaded(x), model(x))
    model.unmerge_adapter()
    assert_near(model(x), expected, merged_bound + (roundings(model, x) if rounds else 0))
    if rounds:
        assert refused(lambda: model.merge_adapter(safe_merge=True), LayerError)
    else:
        for name, tensor in model.state_dict().items():
            assert_near(tensor, state[name], NEAR * state[name].abs().max())
    return "R" if rounds else "M"


def converts(saved, plain, x, expected, folder):
    """C where `randlora convert` writes an adapter that stock PEFT loads with the same output."""
    if refused(lambda: convert(saved, folder), CheckpointError):
        assert not folder.exists()
        return ""
    loaded = peft.PeftModel.from_pretrained(plain, folder).eval()
    assert loaded.peft_config["default"].peft_type == peft.PeftType.RANDLORA
    assert_near(loaded(x), expected)
    return "C"


def exports(model, plain, x, expected, folder):
    """E where a LoRA of full rank has the same output."""
    if refused(lambda: export_lora(model, WIDTH, folder), LayerError):
        assert not folder.exists()
        return ""
    assert_near(peft.PeftModel.from_pretrained(plain, folder).eval()(x), expected)
    return "E"


def refused_whole(method, kind):
    """Whether the adapter is refused, and the model then as it was."""
    base, x = kind.plain(), kind.batch()
    parts, state, output = list(base.modules()), copy.deepcopy(base.state_dict()), base(x)
    trained = [p.requires_grad for p in base.parameters()]
    if not refused(lambda: peft.get_peft_model(base, own_config(method, kind))):
        return False
    assert list(base.modules()) == parts
    assert all(torch.equal(tensor, state[name]) for name, tensor in base.state_dict().items())
    assert [p.requires_grad for p in base.parameters()] == trained
    assert torch.equal(base(x), output)
    return True


@pytest.mark.parametrize("kind_name", LAYERS)
@pytest.mark.parametrize("method", ROWS)
def test_every_form_of_an_adapter_agrees(method, kind_name, tmp_path):
    kind = LAYERS[kind_name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's, PEFT's on projections, and ours on rounding
        found = "–" if refused_whole(method, kind) else forms(method, kind, kind_name, tmp_path)
    assert documented()[method, kind_name] == found


def forms(method, kind, kind_name, folder):
    """What works of an adapter, after all that works was found to agree."""
    x = kind.batch()
    model = fill(peft.get_peft_model(kind.plain(), own_config(method, kind))).eval()
    expected = model(x).detach()
    assert (expected - kind.plain()(x)).abs().max() > 100 * NEAR * expected.abs().max()
    assert_near(copy.deepcopy(model)(x), expected)
    model.save_pretrained(folder / "adapter")
    assert_near(peft.PeftModel.from_pretrained(kind.plain(), folder / "adapter").eval()(x), expected)
    converted = converts(folder / "adapter", kind.plain(), x, expected, folder / "converted")
    exported = exports(model, kind.plain(), x, expected, folder / "lora")
    merged = merges(model, x, expected, kind_name)
    return " ".join(filter(None, ("✓", merged, converted, exported)))


def test_the_table_has_every_pair():
    assert set(documented()) == {(method, kind) for method in ROWS for kind in LAYERS}
