"""How much of an update is added, by the names that diffusers and PEFT have for it."""

import peft
import pytest
import torch
from peft.helpers import rescale_adapter_scale
from peft.tuners.tuners_utils import BaseTunerLayer

from every_method import adapted, layers, with_second
from networks import Net, rows
from randlora import fold_once


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def one_layer(method, **options):
    """A model in which only one layer is adapted, so that its output is linear in the scale."""
    model = adapted(method, target_modules=["c"], **options)
    return model, Net()(rows())


def test_the_output_follows_the_scale(method):
    model, plain = one_layer(method)
    (layer,) = layers(model)
    full = model(rows()) - plain
    assert full.abs().max() > 1e-3
    for change, scale in (
        (lambda: layer.set_scale("default", 0.5), 0.5),
        (lambda: layer.scale_layer(0.5), 0.25),
        (lambda: layer.scale_layer(-2), -0.5),
        (lambda: layer.unscale_layer(-2), 0.25),
        (lambda: layer.set_scale("default", 3), 3),
        (lambda: layer.set_scale("not here", 7), 3),
        (layer.unscale_layer, 1),
        (lambda: layer.scale_layer(0), 0),
        (lambda: layer.unscale_layer(None), 1),
    ):
        change()
        close(model(rows()) - plain, scale * full)


def test_gradients_follow_it(method):
    model, _ = one_layer(method)
    parameters = [parameter for name, parameter in model.named_parameters() if ".default." in name]

    def gradients():
        return torch.autograd.grad(model.train()(rows()).sum(), parameters, allow_unused=True)

    full = gradients()
    layers(model)[0].set_scale("default", 0.5)
    for found, whole in zip(gradients(), full, strict=True):
        close(found, 0.5 * whole)


def test_pefts_rescaling_for_a_while(method):
    model, plain = one_layer(method)
    full = model(rows())
    with rescale_adapter_scale(model, 0.25):
        close(model(rows()) - plain, 0.25 * (full - plain))
    assert torch.equal(model(rows()), full)
    with pytest.raises(ValueError, match="scaling"), rescale_adapter_scale(Net(), 0.25):
        pass


def test_only_active_adapters_are_scaled_and_each_has_its_own(method):
    model = with_second(method, target_modules=["c"])
    plain = Net()(rows())
    (layer,) = layers(model)
    full = model(rows()) - plain
    model.set_adapter("other")
    other = model(rows()) - plain
    layer.scale_layer(0.5)
    close(model(rows()) - plain, 0.5 * other)
    model.base_model.set_adapter(["default", "other"])
    close(model(rows()) - plain, full + 0.5 * other)
    model.delete_adapter("other")
    assert set(layer.scaling) == set(layer.initial_scaling) == {"default"}


def test_merged_with_a_scale_as_fuse_lora_does(mergeable):
    model, plain = one_layer(mergeable)
    full = model(rows()) - plain
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.scale_layer(0.5)
            module.merge()
    close(model(rows()) - plain, 0.5 * full)
    model.base_model.model.c.set_scale("default", 4)  # of no effect on what is merged
    close(model(rows()) - plain, 0.5 * full)
    model.unmerge_adapter()
    close(model(rows()) - plain, 4 * full)
    model.disable_adapter_layers()
    close(model(rows()), plain)


def test_what_is_made_of_the_update_has_the_scale(mergeable):
    model, _ = one_layer(mergeable)
    (layer,) = layers(model)
    delta = layer.get_delta_weight("default")
    layer.set_scale("default", -0.5)
    close(layer.get_delta_weight("default"), -0.5 * delta)
    expected = model(rows())
    with fold_once(model), torch.no_grad():
        close(model(rows()), expected)
        layer.set_scale("default", 1)
        assert (model(rows()) - expected).abs().max() > 1e-3
        layer.set_scale("default", -0.5)
        close(model(rows()), expected)
    close(model.merge_and_unload()(rows()), expected)


def test_a_scale_is_not_saved(method, tmp_path):
    model = adapted(method)
    expected = model(rows())
    layers(model)[0].set_scale("default", 0.5)
    model.save_pretrained(tmp_path)
    close(peft.PeftModel.from_pretrained(Net(), tmp_path)(rows()), expected)


def test_diffusers_functions(method):
    from diffusers.utils import peft_utils

    model = with_second(method, target_modules=["c"])
    plain, full = Net()(rows()), model(rows())
    model.set_adapter("other")
    other = model(rows())
    peft_utils.set_weights_and_activate_adapters(model, ["default", "other"], [0.5, -2.0])
    expected = plain + 0.5 * (full - plain) - 2 * (other - plain)
    close(model(rows()), expected)
    peft_utils.scale_lora_layers(model, 0.1)  # of cross_attention_kwargs={"scale": 0.1}
    close(model(rows()), plain + 0.1 * (expected - plain))
    peft_utils.unscale_lora_layers(model, 0.1)
    close(model(rows()), expected)
