"""The scripts of examples/: each trains λ and γ and nothing else; its saved adapter gives the same outputs again."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from randlora.methods.randlora import PEFT_TYPE

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch):
    """Import a script by name, as Python does that runs it: with its folder on the path."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def script(name, package):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'randlora[examples]'")
        return importlib.import_module(name)

    return script


def plain_name(name):
    """A parameter's name without what adapters put into it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def assert_trained(model, base, folder):
    """Every γ has left its start, the saved file holds the numbers, and no number of the base model has moved."""
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == PEFT_TYPE
    saved = load_file(folder / "adapter_model.safetensors")
    trained = {plain_name(n): p for n, p in model.state_dict().items() if "randlora_" in n}
    assert {plain_name(name) for name in saved} == {name.removesuffix(".default.weight") for name in trained}
    for name, tensor in saved.items():
        assert torch.equal(tensor, trained[f"{plain_name(name)}.default.weight"])
        assert tensor.abs().max() > 0
    for name, tensor in base.state_dict().items():
        assert torch.equal({plain_name(n): p for n, p in model.state_dict().items()}[name], tensor), name


def assert_same_outputs(run, trained, loaded, base):
    """`run` calls a model; the loaded model gives the trained one's outputs, which are not the base model's."""
    with torch.no_grad():
        expected = run(trained.eval())
        torch.testing.assert_close(run(loaded.eval()), expected)
        assert (run(base.eval()) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo"])
def test_trl(script, tmp_path, name):
    import peft

    module = script(name, "trl")
    trained = module.main(tmp_path)
    assert_trained(trained, module.base_model(), tmp_path)
    loaded = peft.PeftModel.from_pretrained(module.base_model(), tmp_path)
    ids = torch.arange(14).reshape(2, 7)
    assert_same_outputs(lambda model: model(ids).logits, trained, loaded, module.base_model())


def test_sentence_embeddings(script, tmp_path):
    module = script("sentence_embeddings", "sentence_transformers")
    trained = module.main(tmp_path)
    from sentence_transformers import SentenceTransformer

    base, loaded = (SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("base", "adapted"))
    assert_trained(trained[0].model, base[0].model, tmp_path / "adapted")
    words = ["the cat sees a bird", "a dog"]
    assert_same_outputs(lambda model: model.encode(words, convert_to_tensor=True), trained, loaded, base)


def test_diffusion(script, tmp_path):
    module = script("diffusion", "diffusers")
    trained = module.main(tmp_path)
    assert_trained(trained, module.base_model(), tmp_path)
    inputs = (torch.randn(2, 4, 8, 8), 3, torch.randn(2, 3, 16))
    loaded, base = module.load(tmp_path), module.base_model()
    assert_same_outputs(lambda model: model(*inputs).sample, trained, loaded, base)
