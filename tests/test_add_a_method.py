"""docs/add-a-method.md adds a method that works: its snippets, on every kind of layer."""

import importlib.util
import re
import sys
from pathlib import Path

import peft
import pytest
import torch
import yaml

import literal
from every_method import fill
from kinds import KINDS
from randlora.adapter import register_method
from randlora.training import MethodConfig
from randlora.training.config.adapter_configs import adapter_config
from randlora.training.config.method_table import METHODS, PeftMethod

PAGE = Path(__file__).parent.parent / "docs" / "add-a-method.md"
SOURCE, EQUATION, CONFIG = (
    text for _, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    """The record of the page's file, registered."""
    path = tmp_path_factory.mktemp("methods") / "row_scaled.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("row_scaled", path)
    module = sys.modules["row_scaled"] = importlib.util.module_from_spec(spec)  # where dataclasses look
    spec.loader.exec_module(module)
    register_method(module.METHOD.config, module.METHOD.tuner)
    yield module.METHOD
    del sys.modules["row_scaled"]


@pytest.mark.parametrize("kind_name", KINDS)
def test_it_has_every_kind(method, kind_name, tmp_path, monkeypatch):
    names = {"torch": torch}
    exec(compile(EQUATION, str(PAGE), "exec"), names)  # noqa: S102 - our own text
    monkeypatch.setitem(literal.UPDATES, method.name, names[method.name])
    kind = KINDS[kind_name]
    own = method.config(**{"target_modules": [str(i) for i in range(9)], **kind.options})
    model = fill(peft.get_peft_model(kind.plain().double(), own)).eval()
    x = kind.batch(torch.float64)
    expected = literal.literal_output(kind, model, x, method.name)
    torch.testing.assert_close(model(x), expected)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(kind.plain().double(), tmp_path).eval()
    torch.testing.assert_close(loaded.merge_and_unload()(x), expected)


def test_its_numbers_and_keys(method, monkeypatch):
    monkeypatch.setitem(METHODS, method.name, PeftMethod(method.config, {key: key for key in method.keys}))
    own = adapter_config(MethodConfig(**yaml.safe_load(CONFIG)["method"]), target_modules=["0"])
    assert (type(own), own.r, own.dropout) == (method.config, 4, 0.1)
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(20, 12)), own)
    assert model.get_nb_trainable_parameters()[0] == method.trained(own, 12, 20) == 4 * 32 + 12
    layer = fill(model).base_model.model[0]
    assert torch.linalg.matrix_rank(layer.get_delta_weight("default"), rtol=1e-5) == method.rank(own, 12, 20)
    x = torch.randn(3, 20)
    torch.testing.assert_close(layer.product("default", x), x @ layer.get_delta_weight("default").T)
