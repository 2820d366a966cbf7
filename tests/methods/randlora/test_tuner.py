"""What users of PEFT expect of RandLoRA on tiny models; tests/peft_behaviours has what they expect of every method."""

import copy
import pickle

import peft
import pytest
import torch

from networks import FAMILIES, MODELS, Net, random_config, rows, token_ids
from randlora import RandLoraConfig
from randlora.adapter.weights import read_weight
from randlora.methods.randlora import RandLoraLayer

STRATEGIES = ("auto", "folded", "factored", "reference")


def layers(model):
    return [part for part in model.modules() if isinstance(part, RandLoraLayer)]


def assert_near(got, wanted, relative):
    """Equal up to a share of the largest entry."""
    assert (got - wanted).abs().max() <= relative * wanted.abs().max()


def net(**options):
    return peft.get_peft_model(Net(), random_config(target_modules=["a", "b", "c"], **options))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bases", FAMILIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_adds_its_delta_weight(name, bases, strategy):
    build, targets, task = MODELS[name]
    base = build()
    expected_start = base(token_ids()).logits
    model = peft.get_peft_model(
        base, random_config(bases=bases, strategy=strategy, target_modules=targets, task_type=task)
    )
    changed = model(token_ids()).logits
    assert (changed - expected_start).abs().max() > 1e-3
    with model.disable_adapter():
        torch.testing.assert_close(model(token_ids()).logits, expected_start)
    # The same model with ΔW added by hand.
    plain = build()
    by_name = dict(plain.named_modules())
    for key, part in model.base_model.model.named_modules():
        if isinstance(part, RandLoraLayer):
            by_name[key].weight.data += part.get_delta_weight("default").detach()
    torch.testing.assert_close(changed, plain(token_ids()).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_new_adapter_changes_nothing_and_trains_the_stated_numbers(name):
    build, targets, task = MODELS[name]
    base = build()
    expected = base(token_ids()).logits
    model = peft.get_peft_model(base, RandLoraConfig(r=5, target_modules=targets, task_type=task))
    torch.testing.assert_close(model(token_ids()).logits, expected)
    for layer in layers(model):
        m = min(layer.in_features, layer.out_features)
        n = -(-m // 5)
        trained = [p for p in layer.parameters() if p.requires_grad]
        assert sum(p.numel() for p in trained) == n * 5 + n * m
        assert all(p.dtype == torch.float32 for p in trained)
    adapted = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("randlora_" in n or "modules_to_save" in n for n in adapted)


@pytest.mark.parametrize("bases", FAMILIES)
def test_gradients_reach_lambda_gamma_and_input(bases):
    gradients = {}
    for strategy in ("reference", "folded", "factored"):
        config = random_config(bases=bases, strategy=strategy, target_modules=["a", "b", "c"])
        model = peft.get_peft_model(Net().double(), config)
        x = rows().double().requires_grad_()
        model(x).square().sum().backward()
        gradients[strategy] = [x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]
        assert all(g is not None and g.abs().sum() > 0 for g in gradients[strategy])
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    for strategy in ("folded", "factored"):
        for got, wanted in zip(gradients[strategy], gradients["reference"], strict=True):
            assert_near(got, wanted, 1e-10)


@pytest.mark.parametrize("safe_merge", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_merge_unmerge_and_unload(name, safe_merge):
    build, targets, task = MODELS[name]
    model = peft.get_peft_model(build(), random_config(target_modules=targets, task_type=task))
    before = {n: p.clone() for n, p in model.named_parameters() if "base_layer" in n}
    expected = model(token_ids()).logits
    model.merge_adapter(safe_merge=safe_merge)
    assert all(layer.merged for layer in layers(model))
    torch.testing.assert_close(model(token_ids()).logits, expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    largest = max(layer.get_delta_weight("default").abs().max().item() for layer in layers(model))
    for n, p in model.named_parameters():
        if "base_layer" in n:
            # Two roundings, each at most half a unit in the last place of W or W + ΔW.
            bound = torch.finfo(p.dtype).eps * (before[n].abs().max().item() + largest)
            assert (p - before[n]).abs().max() <= bound
    merged = model.merge_and_unload(safe_merge=safe_merge)
    assert not layers(merged)
    torch.testing.assert_close(merged(token_ids()).logits, expected, rtol=1e-4, atol=1e-4)


def test_merging_in_bfloat16_rounds_once():
    model = net().to(torch.bfloat16)
    layer = layers(model)[0]
    layer.randlora_lambda.float()
    layer.randlora_gamma.float()
    expected = (read_weight(layer.base_layer).float() + layer.get_delta_weight("default")).bfloat16()
    model.merge_adapter()
    assert torch.equal(read_weight(layer.base_layer), expected)


def test_several_adapters_with_ranks_families_and_seeds_of_their_own():
    model = net(r=3, bases="structured")
    torch.manual_seed(5)
    for name, options in {
        "second": {"r": 7, "bases": "uniform"},
        "third": {"r": 2, "bases": "normal", "seed": 9},
    }.items():
        model.add_adapter(name, random_config(target_modules=["a", "b", "c"], **options))
    alone = {}
    for name in ("default", "second", "third"):
        model.set_adapter(name)
        alone[name] = model(rows())
        assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {name}
    assert len({round(float(y.sum()), 3) for y in alone.values()}) == 3

    # Active together their updates add up.
    model.base_model.set_adapter(["default", "third"])
    together = model(rows())
    plain = Net()
    for key, layer in model.base_model.model.named_modules():
        if isinstance(layer, RandLoraLayer):
            weight = dict(plain.named_modules())[key].weight.data
            weight += layer.get_delta_weight("default").detach() + layer.get_delta_weight("third").detach()
    torch.testing.assert_close(together, plain(rows()), rtol=1e-4, atol=1e-5)
    model.merge_adapter(adapter_names=["default", "third"])
    torch.testing.assert_close(model(rows()), together, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()

    model.set_adapter("second")
    model.delete_adapter("third")
    assert all("third" not in layer.r and "third" not in layer.randlora_bases for layer in layers(model))
    torch.testing.assert_close(model(rows()), alone["second"])


def test_patterns_choose_rank_and_alpha_by_layer():
    model = net(r=4, rank_pattern={"b": 2}, alpha_pattern={"c": 3.0})
    found = {name: part for name, part in model.base_model.model.named_modules() if isinstance(part, RandLoraLayer)}
    assert {name: part.r["default"] for name, part in found.items()} == {"a": 4, "b": 2, "c": 4}
    scale = found["a"].scaling["default"] * 13 ** (4 / 3)  # alpha·√r/m^(4/3): 2·√4 in common with c
    assert found["c"].scaling["default"] == pytest.approx(3 / 2 * scale / 11 ** (4 / 3))


def test_dropout_acts_on_the_update_in_training_only():
    plain, dropping = net(), net(dropout=0.5)
    torch.testing.assert_close(dropping.eval()(rows()), plain.eval()(rows()), rtol=1e-4, atol=1e-5)
    dropping.train()
    assert not torch.allclose(dropping(rows()), dropping(rows()))
    with dropping.disable_adapter():
        assert torch.equal(dropping(rows()), Net()(rows()))
    dropping(rows()).sum().backward()
    assert all(p.grad is not None for p in dropping.parameters() if p.requires_grad)


class MatmulDtypes(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the dtypes of all matrix products of more than a vector."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function._schema.name in ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"):
            self.seen |= {a.dtype for a in arguments if isinstance(a, torch.Tensor) and min(a.shape[-2:]) > 4}
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("strategy", ["folded", "factored"])
@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_autocast_keeps_lambda_and_gamma_in_float32_and_multiplies_in_bfloat16(bases, strategy):
    model = net(bases=bases, strategy=strategy)
    exact = model(rows())
    with MatmulDtypes() as forward, torch.autocast("cpu", torch.bfloat16):
        output = model(rows())
    assert forward.seen == {torch.bfloat16}
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; three layers of products of up to 29 terms.
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)
    output.float().square().sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_in_another_dtype(dtype):
    model = peft.get_peft_model(Net().to(dtype), random_config(target_modules=["a", "b", "c"]))
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(p.dtype == wanted for p in model.parameters() if p.requires_grad)
    output = model(rows().to(dtype))
    assert output.dtype == dtype
    output.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("batch", [1, 4096])
def test_an_input_of_another_dtype_is_refused_for_every_batch(batch):
    model = peft.get_peft_model(Net().bfloat16(), random_config(bases="uniform", target_modules=["a", "b", "c"]))
    with pytest.raises(RuntimeError, match="dtype"):
        model(torch.randn(batch, 13))


def test_casting_the_whole_model_afterwards():
    model = net().to(torch.bfloat16)
    assert model(rows().bfloat16()).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("strategy", ["folded", "factored"])
@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_compiled_whole_it_gives_the_same(bases, strategy, autocast):
    torch._dynamo.reset()
    model = net(bases=bases, strategy=strategy)

    def step(function):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = function(rows())
        output.float().square().sum().backward()
        return [output.float().detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    compiled = step(torch.compile(model, fullgraph=True, backend="aot_eager"))
    for got, wanted in zip(compiled, step(model), strict=True):
        # A compiled graph keeps intermediate sums in float32 that eager mode rounds to bfloat16 (8 bits).
        assert_near(got, wanted, 0.03 if autocast else 1e-5)


@pytest.mark.slow
def test_compiled_by_inductor():
    torch._dynamo.reset()
    model = net()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(rows()), model(rows()), rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_share_the_bases():
    model = net(bases="uniform")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert layers(other)[0].randlora_bases["default"] is layers(model)[0].randlora_bases["default"]


def test_inference_first_then_training():
    model = net(bases="uniform")
    with torch.inference_mode():
        model(rows())
    model(rows()).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_dispatched_over_a_device_map():
    import accelerate

    expected = net()(rows())
    model = accelerate.dispatch_model(net(), device_map={"": "cpu"}, main_device="cpu", force_hooks=True)
    torch.testing.assert_close(model(rows()), expected, rtol=1e-4, atol=1e-5)


def test_leading_dimensions_and_empty_batches():
    for bases in FAMILIES:
        for strategy in STRATEGIES:
            model = net(bases=bases, strategy=strategy)
            flat = model(rows())
            torch.testing.assert_close(model(rows().view(5, 1, 1, 13)).view(5, 11), flat, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model(rows()[0]), flat[0], rtol=1e-4, atol=1e-5)
            assert model(rows()[:0]).shape == (0, 11)


def test_the_layer_says_what_it_holds():
    assert "default: r=4, num_bases=4" in repr(next(p for p in net().modules() if isinstance(p, RandLoraLayer)))
