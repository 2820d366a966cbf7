"""What lives between forward and backward, and what uninitialized memory could do."""

import pytest
import torch

FAMILIES = ("uniform", "ternary-20", "structured")  # the forms: dense, with nonzero entries by rows, structured
everywhere = pytest.mark.parametrize(
    ("family", "strategy", "small_is_input"),
    [(f, s, i) for f in FAMILIES for s in ("added", "factored", "folded", "mixed") for i in (True, False)],
)


@everywhere
@pytest.mark.parametrize("tokens", [2, 64])
def test_only_inputs_and_shared_tensors_are_saved(update, make_case, family, strategy, small_is_input, tokens):
    case = make_case(family, 4, 24, 32, small_is_input=small_is_input, batch=(tokens,), dtype=torch.bfloat16)
    allowed = [case.x, case.weight, case.lambda_, case.gamma, *case.form]
    known = {t.untyped_storage().data_ptr() for t in allowed}
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = case.by(update, strategy)
    assert saved
    further = [t for t in saved if t.untyped_storage().data_ptr() not in known]
    # C of the structured bases, in the compute dtype, has as many entries as γ.
    assert [t.numel() * t.element_size() for t in further] in ([], [2 * case.gamma.numel()])
    assert not further or (family == "structured" and strategy != "added")
    ours = [node for node in _nodes(output.grad_fn) if "Adapted" in node.name() or "Factored" in node.name()]
    assert len(ours) == 1
    assert not any(isinstance(value, torch.Tensor) for value in vars(ours[0]).values())
    output.sum().backward()


def _nodes(node):
    """The autograd graph from a node on."""
    return [] if node is None else [node, *(below for next_, _ in node.next_functions for below in _nodes(next_))]


@everywhere
def test_fresh_memory_may_hold_anything(update, make_case, monkeypatch, family, strategy, small_is_input):
    expected = _results(make_case(family, 5, 13, 22, small_is_input=small_is_input), update, strategy)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        poisoned = _results(make_case(family, 5, 13, 22, small_is_input=small_is_input), update, strategy)
    finally:
        torch.use_deterministic_algorithms(False)
    for ours, theirs in zip(poisoned, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def _results(case, update, strategy):
    output = case.by(update, strategy)
    return [output.detach(), *torch.autograd.grad(output.sum(), case.leaves)]


@everywhere
def test_arguments_are_not_written_to(update, make_case, family, strategy, small_is_input):
    case = make_case(family, 5, 13, 22, small_is_input=small_is_input)
    tensors = [case.x, case.weight, case.lambda_, case.gamma, *case.form]
    before = [t.detach().clone() for t in tensors]
    _results(case, update, strategy)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
