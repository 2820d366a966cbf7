"""The model card of an adapter folder: what it is, of what, and how to load it."""

import json
import re
from pathlib import Path
from typing import Any

import transformers
from peft import PeftModel
from torch import nn

from randlora.adapter_config import OwnConfig
from randlora.files import write_atomically
from randlora.formats.checkpoint import WEIGHTS_FILE, read_tensor_shapes
from randlora.formats.numbers import trained_numbers

CARD_FILE = "README.md"


def write_model_card(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> Path:
    """Write README.md into the folder of a saved adapter, in place of PEFT's template.

    It states what is known from the adapter and its model, and no license, since nothing here knows it. Names that come
    from outside are escaped.

    Args:
        model: The model that the adapter was saved from.
        folder: Where `save_pretrained` wrote it.
        adapter_name: Its name.

    Returns:
        The file written.

    Raises:
        CheckpointError: The folder holds no adapter weights.

    Example:
        >>> import tempfile
        >>> import peft, torch
        >>> from randlora import RandLoraConfig, write_model_card
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 12))
        >>> model = peft.get_peft_model(net, RandLoraConfig(r=2, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     card = write_model_card(model, folder).read_text(encoding="utf-8")
        >>> print(next(line for line in card.splitlines() if "update" in line))
        | update | ΔW = g · Σⱼ Bⱼ Λⱼ A Γⱼ, g = alpha·√r/m^(4/3), m the smaller side |
    """
    config, base = model.peft_config[adapter_name], model.get_base_model()
    name = config.base_model_name_or_path or ""
    facts = {
        "base model": _escape(name) or "not recorded",
        "method": _escape(config.peft_type.value),
        **_update(config),
        **_trained(config, read_tensor_shapes(Path(folder) / WEIGHTS_FILE)),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    card = f"""{_metadata(name)}
# Adapter of {_escape(name) or "a base model"}

| | |
|---|---|
{table}

## Loading

```python
{_loading(base, name)}
```
{_classes(base)}"""
    path = Path(folder) / CARD_FILE
    write_atomically(path, card)
    return path


def _metadata(name: str) -> str:
    """The block that the hub reads; a JSON string is a YAML string, whatever is in it."""
    lines = ["---", "library_name: peft", "tags: [randlora]"]
    # Of a folder on somebody's disk the hub would refuse the whole card.
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not Path(name).exists():
        lines.append(f"base_model: {json.dumps(name)}")
    return "\n".join([*lines, "---"])


def _update(config: Any) -> dict[str, str]:
    """The method, the equation of ΔW and its numbers, as far as they are known."""
    if isinstance(config, OwnConfig):
        return config.describe()
    if config.peft_type == "LORA":
        product = f"(alpha/{'√r' if config.use_rslora else 'r'})·B·A"
        dora = f"magnitude · (W₀ + {product}) / its norms - W₀"
        return {
            "method": "LoRA ([Hu et al., 2021](https://arxiv.org/abs/2106.09685))",
            "update": f"ΔW = {dora if config.use_dora else product}",
            "r": f"{config.r}{', by layer in the config' if config.rank_pattern else ''}",
            "alpha": f"{config.lora_alpha}{', by layer in the config' if config.alpha_pattern else ''}",
        }
    return {}


def _trained(config: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Trained numbers of the adapter, and of what was trained whole beside it."""
    found = trained_numbers(config.peft_type, shapes, getattr(config, "init_lora_weights", None))
    if getattr(config, "adapter", None) is not None:  # of the weights, beside prompts
        return {"trained numbers": f"{found.adapter + found.whole:,}"}
    where = f" in {len(found.by_layer)} layers" if found.by_layer and hasattr(config, "target_modules") else ""
    facts = {"trained numbers": f"{found.adapter:,}{where}"}
    if found.whole:
        facts["trained whole"] = f"{found.whole:,} numbers beside them"
    return facts


def _loading(base: Any, name: str) -> str:
    kind = type(base).__name__
    if name and getattr(transformers, kind, None) is type(base):
        imported = [f"from transformers import {kind}"]
        labels = f", num_labels={base.config.num_labels}" if _is_classifier(base) else ""
        built = f"base = {kind}.from_pretrained({name!r}{labels})"
    else:
        imported, built = [], f"base = ...  # the base model, a {type(base).__module__}.{kind}"
    lines = [
        "import randlora  # makes PEFT know the adapter",
        "from peft import PeftModel",
        *imported,
        "",
        built,
        'model = PeftModel.from_pretrained(base, ".")  # this folder, or its name on the hub',
    ]
    return "\n".join(lines)


def _is_classifier(base: nn.Module) -> bool:
    return type(base).__name__.endswith(("Classification", "Classifier"))


def _classes(base: Any) -> str:
    """The names of a classifier's outputs, which the adapter's own config does not hold."""
    if not _is_classifier(base):
        return ""
    names = base.config.id2label
    return "\n## Classes\n\n" + "\n".join(f"{number}. {_escape(names[number])}" for number in sorted(names)) + "\n"


def _escape(text: str) -> str:
    """One line of plain text in Markdown and in its tables."""
    line = "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", line)
