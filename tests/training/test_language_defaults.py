"""The defaults train a language model on every kind of base, one example at a time, over three epochs."""

from dataclasses import replace

import numpy as np
import pytest

from randlora.tasks.language.sft import Sft
from randlora.training import MethodConfig, OptimizationConfig, train

pytestmark = pytest.mark.slow

BASES = [{}, {"dtype": "bfloat16"}, {"dtype": "float16"}, {"quantization": "nf4"}, {"quantization": "int8"}]


@pytest.mark.parametrize(("base", "batch_size"), [*((base, 1) for base in BASES), ({}, Sft.defaults.batch_size)])
def test_losses_are_finite_and_fall(sft_config, base, batch_size, monkeypatch):
    monkeypatch.setattr("randlora.training.run.arguments.LOGGING_STEPS", 1)
    if "quantization" in base:
        pytest.importorskip({"nf4": "bitsandbytes", "int8": "torchao"}[base["quantization"]])
    # Mixed precision in fp16 is refused without a GPU; on a CPU fp16 is the dtype of the base alone.
    optimization = OptimizationConfig(epochs=3, batch_size=batch_size, precision="fp32", device="cpu")
    record = train(replace(sft_config, method=MethodConfig(), optimization=optimization, **base))
    losses = [entry["loss"] for entry in record.history if "loss" in entry]
    assert len(losses) == 3 * -(-40 // batch_size)
    assert np.isfinite(losses).all()
    assert np.isfinite([entry["grad_norm"] for entry in record.history if "grad_norm" in entry]).all()
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < np.mean(losses[:third])
    assert max(losses) < 1.2 * losses[0]
    assert record.metrics["test_loss"] < record.metrics["test_loss_before"]
