"""The package as a whole: lean to import, registered once."""

import doctest
import importlib
from pathlib import Path

import peft
import pytest
from torch import nn

import randlora
from randlora import formats, methods
from randlora.methods import register_methods
from randlora.methods.randlora import PEFT_TYPE


def test_import_is_lean(in_new_process):
    heavy = ("matplotlib", "datasets", "trl", "sklearn", "jsonargparse")
    # PEFT imports these where they are installed; randlora has to do without them.
    source = "import sys; sys.modules['bitsandbytes'] = sys.modules['torchao'] = None\nimport randlora\n"
    source += "randlora.RandLoraConfig\n"
    assert in_new_process(source + f"print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_the_package_alone_imports_nothing_heavy(in_new_process):
    source = "import sys, importlib.util, randlora, randlora.cli, randlora.errors, randlora.files\n"
    source += "importlib.util.find_spec('peft')\n"  # as transformers asks whether it is installed
    source += "print([m for m in ('torch', 'transformers', 'peft', 'numpy', 'pydantic') if m in sys.modules])"
    assert in_new_process(source) == "[]"


@pytest.mark.parametrize(
    "imports",
    [
        "import randlora; from peft import PeftModel",
        "from peft import PeftModel; import randlora",
        "import randlora.errors, transformers, peft.tuners.lora; from peft import PeftModel",
        "from randlora.adapter.base_layer import AdapterLayer; from peft import PeftModel",
        "from randlora import fold_once; from peft import PeftModel",
    ],
)
def test_the_import_alone_lets_peft_load_an_adapter(without_randlora, tmp_path, imports):
    config = randlora.RandLoraConfig(r=4, target_modules=["0"])
    peft.get_peft_model(nn.Sequential(nn.Linear(8, 8)), config).save_pretrained(tmp_path / "adapter")
    source = f"{imports}\nimport sys\nfrom torch import nn\n"
    source += "model = PeftModel.from_pretrained(nn.Sequential(nn.Linear(8, 8)), 'adapter')\n"
    source += "assert sys.modules['randlora.adapter'] is sys.modules['randlora'].adapter\n"
    assert without_randlora(source + "print(type(model.base_model).__name__)") == "RandLoraTuner"


def test_import_leaves_triton_alone(without_randlora):
    # Where Triton is installed, torch._dynamo imports it, and PEFT that: so look for our own modules and do without it.
    source = "import sys; sys.modules['triton'] = None\nimport randlora, randlora.update.kernels\n"
    source += "print([m for m in sys.modules if m.startswith('randlora') and m.endswith('_triton')])"
    assert without_randlora(source) == "[]"


def test_registering_again_changes_nothing():
    before = list(peft.PeftType)
    register_methods()
    assert list(peft.PeftType) == before
    assert peft.PeftType[PEFT_TYPE] is peft.PeftType(PEFT_TYPE)
    assert getattr(peft.PeftType, PEFT_TYPE) == PEFT_TYPE


def test_pefts_own_randlora_is_untouched():
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.RANDLORA] is peft.RandLoraConfig
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[PEFT_TYPE]] is randlora.RandLoraConfig


def test_public_names_exist():
    assert all(hasattr(randlora, name) for name in randlora.__all__)


PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (randlora, methods, formats)
    for name in module.__all__
    if callable(getattr(module, name))
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    assert ">>> " in PUBLIC[name].__doc__


SOURCES = Path(randlora.__file__).parent
MODULES = [
    ".".join(("randlora", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(SOURCES.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
