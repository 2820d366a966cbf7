"""Every method on every kind of layer: one adapter in all its forms gives one output, or is refused whole.

What was found to agree is a cell of the table in docs/layers.md: `python tests/layers_table.py --write` writes it,
tests/adapter/test_agreement.py compares it with the truth.
"""

import copy
import re
import sys
import tempfile
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

PAGE = Path(__file__).parents[1] / "docs" / "layers.md"
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
METHOD_OF = {
    "`randlora`, `structured`": "randlora",
    "`randlora`, `uniform`": "randlora_uniform",
    "`randlora`, `peft`": "randlora_peft",
    **{f"`{name}`": name for name in METHODS if name not in ("randlora", "randlora_uniform")},
}
ROWS = tuple(METHOD_OF)


def own_config(method, kind):
    options = {"target_modules": [str(i) for i in range(9)], **kind.options}
    if METHOD_OF[method] == "randlora_peft":
        return RandLoraConfig(r=4, alpha=2.0, bases="peft", **options)
    return config(METHOD_OF[method], **options)


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


def cell(method, kind_name, folder):
    """What the table says of a pair."""
    kind = LAYERS[kind_name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's, PEFT's on projections, and ours on rounding
        return "–" if refused_whole(method, kind) else forms(method, kind, kind_name, folder)


_TABLE = re.compile(r"^\| method \| Linear \|.*\n\|[-|: ]+\n((?:\|.*\n)+)", re.MULTILINE)


def documented():
    """(method, kind of layer) -> the cell of the table in docs/layers.md."""
    lines = _TABLE.search(PAGE.read_text(encoding="utf-8"))
    head = [cell.strip(" `") for cell in lines[0].splitlines()[0].strip("|").split("|")][1:]
    cells = {}
    for line in lines[1].splitlines():
        name, *row = (cell.strip() for cell in line.strip("|").split("|"))
        cells |= {(name, kind): cell for kind, cell in zip(head, row, strict=True)}
    return cells


def table():
    """The table, found out again."""
    lines = [f"| method | {' | '.join(LAYERS)} |", f"|---|{':-:|' * len(LAYERS)}"]
    for method in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            row = [cell(method, name, Path(folder) / str(i)) for i, name in enumerate(LAYERS)]
        lines.append(f"| {method} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main():
    """Print the table, or write it into the page."""
    found = table()
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_TABLE.sub(lambda _: found, page, count=1), encoding="utf-8")
    else:
        sys.stdout.write(found)


if __name__ == "__main__":
    main()
