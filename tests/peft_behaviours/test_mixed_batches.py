"""Batches in which every sample names its adapter, for every method; see tests/adapter/test_mixed_batch.py."""

import pytest
import torch

from every_method import with_second
from networks import Net, bert, rows, token_ids
from randlora.errors import UpdateError

NAMES = ["other", "__base__", "default", "other", "default"]


def by_row(model, call, inputs, names):
    """Row by row, with the row's adapter active."""
    outputs = []
    for row, name in zip(inputs.split(1), names, strict=True):
        if name == "__base__":
            with model.disable_adapter():
                outputs.append(call(row))
        else:
            model.set_adapter(name)
            outputs.append(call(row))
    model.set_adapter("default")
    return torch.cat(outputs)


def test_every_row_is_what_its_adapter_gives(method):
    model = with_second(method, Net().double(), second={"target_modules": ["a", "c"]})
    x = rows().double()
    expected = by_row(model, model, x, NAMES)
    torch.testing.assert_close(model(x, adapter_names=NAMES), expected)
    assert (expected[0] - expected[2]).abs().max() > 1e-2
    with pytest.raises(UpdateError, match="unknown"):
        model(x, adapter_names=["unknown"] * 5)
    torch.testing.assert_close(model(x), by_row(model, model, x, ["default"] * 5))


def test_heads_of_their_own(method):
    model = with_second(method, bert(), target_modules=["query", "dense"], task_type="SEQ_CLS")
    ids, names = token_ids().repeat(2, 1), ["other", "default", "__base__", "other"]
    expected = by_row(model, lambda row: model(row).logits, ids, names)
    torch.testing.assert_close(model(ids, adapter_names=names).logits, expected)
