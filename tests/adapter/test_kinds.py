"""RandLoRA on every kind of base layer: equation 4 by every strategy, and weights that are read without a call."""

import peft
import pytest
import torch
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    LongcatFlashConfig,
    LongcatFlashForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MobileBertConfig,
    MobileBertForMaskedLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    WavLMConfig,
    WavLMForXVector,
    WavLMModel,
)

from kinds import KINDS
from literal import literal_output
from networks import random_config, token_ids
from randlora.errors import UpdateError

# Sums of up to a few hundred float32 products of order 1.
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("strategy", ["auto", "reference"])
@pytest.mark.parametrize("bases", ["structured", "uniform"])
def test_values_and_gradients_are_equation_4s(kind, bases, strategy):
    x = kind.batch(torch.float64)
    model = kind.adapted(bases=bases, strategy=strategy).double()
    inputs = [] if kind.ids else [x.requires_grad_()]
    outputs = model(x), literal_output(kind, model, x)
    weights = torch.randn(outputs[0].shape, dtype=torch.float64)
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    got, wanted = (torch.autograd.grad((y * weights).sum(), [*trained(model), *inputs]) for y in outputs)
    for ours, theirs in zip(got, wanted, strict=True):
        assert theirs.abs().sum() > 0
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    assert all(parameter.grad is None for parameter in model.parameters())


def mamba():
    config = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=50, state_size=4, tie_word_embeddings=False)
    return MambaForCausalLM(config).eval()


def x_vector():
    sizes = {"tdnn_dim": (16, 12), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    return wavlm(WavLMForXVector, **sizes)


def wavlm(model_class=WavLMModel, **options):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    convolutions = {"conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_conv_pos_embeddings": 4}
    return model_class(WavLMConfig(**sizes, **convolutions, **options, num_conv_pos_embedding_groups=2)).eval()


def lfm2():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    kinds = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "tie_word_embeddings": False}
    return Lfm2ForCausalLM(Lfm2Config(**sizes, **kinds, vocab_size=50)).eval()


def longcat():
    sizes = {"hidden_size": 16, "ffn_hidden_size": 24, "expert_ffn_hidden_size": 12, "num_layers": 1, "vocab_size": 50}
    ranks = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    heads = {"num_attention_heads": 2, "head_dim": 8, "n_routed_experts": 4, "zero_expert_num": 2, "moe_topk": 2}
    return LongcatFlashForCausalLM(LongcatFlashConfig(**sizes, **ranks, **heads)).eval()


def mobile_bert():
    sizes = {"hidden_size": 24, "embedding_size": 16, "intermediate_size": 24, "intra_bottleneck_size": 16}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50, "tie_word_embeddings": False}
    return MobileBertForMaskedLM(MobileBertConfig(**sizes, **heads)).eval()


@pytest.mark.parametrize(
    ("build", "target"),
    [(mamba, name) for name in ("conv1d", "x_proj", "dt_proj", "out_proj")]
    + [(wavlm, "q_proj"), (wavlm, "out_proj"), (x_vector, "kernel"), (lfm2, "conv.conv"), (longcat, "classifier")]
    + [(mobile_bert, "predictions.dense"), (mobile_bert, "decoder")],
)
def test_a_weight_that_is_read_in_place_of_calling_the_layer(build, target):
    def output(model):
        is_audio = build in (wavlm, x_vector)
        return model(torch.sin(torch.arange(60.0))[None] if is_audio else token_ids())[0]

    torch.manual_seed(1)
    base = build()
    start = output(base).detach()
    model = peft.get_peft_model(base, random_config(target_modules=[target])).eval()
    expected = output(model)
    assert (expected - start).abs().max() > 1e-4
    expected.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in trained(model))
    torch.testing.assert_close(output(model.merge_and_unload()), expected, **NEAR)


def test_a_convolution_that_is_called_for_the_prompt_and_read_in_decoding():
    sizes = {"hidden_size": 16, "lru_width": 16, "intermediate_size": 48, "head_dim": 8, "vocab_size": 50}
    heads = {"num_hidden_layers": 3, "num_attention_heads": 2, "attention_window_size": 8, "pad_token_id": 0}
    torch.manual_seed(1)
    base = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes, **heads)).eval()
    model = peft.get_peft_model(base, random_config(target_modules=["conv_1d"])).eval()

    def decoded(model):
        options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        return torch.stack(model.generate(input_ids=token_ids(), **options).logits)

    expected = decoded(model)
    torch.testing.assert_close(decoded(model.merge_and_unload()), expected, **NEAR)


def test_where_a_weight_is_read_dropout_and_adapters_by_sample_are_refused():
    model = peft.get_peft_model(mamba(), random_config(target_modules=["conv1d"], dropout=0.5))
    with pytest.raises(UpdateError, match=r"Conv1d: expected no dropout and no adapter_names.*leave it out"):
        model.train()(token_ids())
    model.eval()(token_ids())
    with pytest.raises(UpdateError, match="no adapter_names"):
        model(token_ids(), adapter_names=["default", "default"])
    model(token_ids())


def test_a_reference_adapter_filled_by_parameter_names(kind):
    model = kind.adapted()
    x = kind.batch()
    expected = model(x)
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(parameter.data)
    model.set_adapter("ref")
    assert torch.equal(model(x), expected)
