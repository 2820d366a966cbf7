"""Base models: what is asked of them as they are loaded."""

import pytest
import torch

from randlora.tasks.language.model import load_language_model, load_tokenizer
from randlora.tasks.sources import BaseModel


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_evaluation_takes_no_gradients_from_a_quantized_base(llama, quantization):
    pytest.importorskip({"nf4": "bitsandbytes", "int8": "torchao"}[quantization])
    base = BaseModel(str(llama), quantization=quantization)
    model = load_language_model(base, load_tokenizer(base, None))
    ids = torch.tensor([[5, 6, 7, 8]])

    def gradient():
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
        loss = model(inputs_embeds=inputs).logits.logsumexp(-1).sum()
        return torch.autograd.grad(loss, inputs)[0]

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    assert torch.equal(gradient(), before)
