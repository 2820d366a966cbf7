"""Training: what moves, checkpointed and parallel passes, modes, hooks and half-prepared base models."""

import copy

import peft
import pytest
import torch
from torch import nn

from every_method import adapted, config, fill, layers
from networks import Net, llama, rows, token_ids


def steps(model, count=3, rate=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    target = torch.randn(5, 11, generator=torch.Generator().manual_seed(9))
    for _ in range(count):
        optimizer.zero_grad()
        (model(rows()) - target).square().mean().backward()
        optimizer.step()
    return model


def gradients(model, **inputs):
    model.zero_grad()
    model(**inputs).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_only_what_is_trained_moves(method):
    model = adapted(method, target_modules=["a", "b"], modules_to_save=["c"]).train()
    before = copy.deepcopy(model.state_dict())
    steps(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(model.base_model.prefix in name for name in trained)
    assert any("modules_to_save" in name for name in trained)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in trained), name
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_an_inactive_adapter_gets_no_gradient(method):
    model = adapted(method)
    model.add_adapter("other", config(method))
    model.base_model.set_adapter(["default", "other"])
    fill(model)
    model.set_requires_grad("default", requires_grad=False)
    steps(model.train(), count=1)
    for layer in layers(model):
        assert all(p.grad is None for p in layer.trained("default"))
        assert all(p.grad.abs().sum() > 0 for p in layer.trained("other"))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(method, use_reentrant):
    model = adapted(method, llama(), target_modules="all-linear", task_type="CAUSAL_LM").train()
    plain = gradients(model, input_ids=token_ids())
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    checkpointed = gradients(model, input_ids=token_ids())
    assert all(gradient.abs().sum() > 0 for gradient in plain.values())
    torch.testing.assert_close(checkpointed, plain)


def test_a_base_model_prepared_for_quantized_training(method):
    base = peft.prepare_model_for_kbit_training(llama())
    assert not any(p.requires_grad for p in base.parameters())
    model = adapted(method, base, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM").train()
    plain = adapted(method, llama(), target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM").train()
    torch.testing.assert_close(gradients(model, input_ids=token_ids()), gradients(plain, input_ids=token_ids()))


def test_input_embeddings_can_be_passed(method):
    model = adapted(method, llama(), target_modules=["q_proj"], task_type="CAUSAL_LM")
    embeddings = model.get_input_embeddings()(token_ids())
    assert not embeddings.requires_grad
    torch.testing.assert_close(model(inputs_embeds=embeddings).logits, model(token_ids()).logits)


def test_data_parallel(method):
    model = adapted(method)
    expected = model(rows())
    parallel = nn.DataParallel(model)  # on a CPU it calls the module
    assert torch.equal(parallel(rows()), expected)
    replicas = [copy.deepcopy(model) for _ in range(2)]
    halves = [replica(part) for replica, part in zip(replicas, rows().split(3), strict=True)]
    torch.testing.assert_close(torch.cat(halves), expected)


def test_modes(method):
    model = adapted(method, dropout=0.5)
    exact = model(rows())
    assert torch.equal(model(rows()), exact)
    assert not torch.equal(model.train()(rows()), model(rows()))
    model.eval()
    assert torch.equal(model(rows()), exact)
    with torch.no_grad():
        torch.testing.assert_close(model(rows()), exact)
    with torch.inference_mode():
        torch.testing.assert_close(model(rows()), exact)
    model.train()(rows()).sum().backward()


def test_hooks(method):
    model = adapted(method)
    expected = model(rows())
    seen = []
    layer = layers(model)[0]
    handles = [
        layer.register_forward_pre_hook(lambda *_: seen.append("before")),
        layer.register_forward_hook(lambda *_: seen.append("after")),
        layer.base_layer.register_forward_hook(lambda *_: seen.append("base")),
        layer.register_full_backward_hook(lambda *_: seen.append("backward")),
    ]
    hooked = model(rows().requires_grad_())
    torch.testing.assert_close(hooked, expected, rtol=1e-4, atol=1e-5)
    hooked.sum().backward()
    assert seen == ["before", "base", "after", "backward"]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model(rows()), expected)
    doubled = layer.base_layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    update = adapted(method).base_model.model.a(rows()) - Net().a(rows())
    torch.testing.assert_close(layer(rows()), 2 * Net().a(rows()) + update, rtol=1e-4, atol=1e-5)
    doubled.remove()


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_the_gradients_of_the_base_layer(method, register):
    model = adapted(method)
    seen = []
    getattr(layers(model)[0].base_layer, register)(lambda *_: seen.append("base"))
    model(rows().requires_grad_()).sum().backward()
    assert seen == ["base"]


def test_autocast(any_method):
    model = adapted(any_method)
    exact = model(rows())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(rows())
    assert output.dtype == torch.bfloat16
    assert (output.float() - exact).abs().max() <= 0.05 * exact.abs().max()  # 8 bits, three layers
    output.float().square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in trained)


def test_leading_dimensions_and_empty_batches(method):
    model = adapted(method)
    flat = model(rows())
    torch.testing.assert_close(model(rows().view(5, 1, 1, 13)).view(5, 11), flat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(rows()[0]), flat[0], rtol=1e-4, atol=1e-5)
    assert model(rows()[:0]).shape == (0, 11)


def test_generation(method):
    model = adapted(method, llama(), target_modules="all-linear", task_type="CAUSAL_LM")
    tokens = model.generate(input_ids=token_ids(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert torch.equal(tokens, model.generate(token_ids(), max_new_tokens=4, min_new_tokens=4, do_sample=False))
    greedy = token_ids()
    for _ in range(4):
        scores = model(greedy).logits[:, -1:].detach()
        scores[..., model.config.eos_token_id] = float("-inf")  # no end within min_new_tokens
        greedy = torch.cat([greedy, scores.argmax(-1)], dim=1)
    assert torch.equal(tokens, greedy)
