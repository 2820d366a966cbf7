"""Trained numbers of the paper's suites beside the paper's: a table of docs/suites.md, which this writes.

`python tests/paper_counts.py` makes the configs of the paper's models, without weights, and counts every cell of every
suite (a minute); a test compares some of its lines.
"""

import tempfile
from pathlib import Path

import transformers

from pages import with_table
from randlora.report import Column
from randlora.report.table import count, markdown_table
from randlora.studies.cells import cells_of
from randlora.studies.paper import paper_trained, ratio_to_paper
from randlora.studies.schema import load_suite
from randlora.studies.sizes import size_of

SUITES = Path(__file__).parent.parent / "suites" / "paper"
PAGE = Path(__file__).parent.parent / "docs" / "suites.md"
BEGIN, END = "<!-- written by tests/paper_counts.py -->\n", "<!-- end of the counts -->\n"


def clip(width, text, layers, patch, projection):
    """A CLIP; its text tower has 12 blocks, or as many as 24 with the largest."""
    vision = {"num_hidden_layers": layers, "patch_size": patch, "num_attention_heads": min(width // 64, 16)}
    other = {"num_hidden_layers": 24 if text == 1024 else 12, "num_attention_heads": text // 64}
    for tower, side in ((vision, width), (other, text)):
        tower |= {"hidden_size": side, "intermediate_size": 4 * side}
    return transformers.CLIPConfig(text_config=other, vision_config=vision, projection_dim=projection)


ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
QWEN2 = {"num_key_value_heads": 2, "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14}
PHI3 = {"num_key_value_heads": 32, "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32}
LLAMA3 = {"num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}

MODELS = {
    "openai/clip-vit-base-patch32": lambda: clip(768, 512, 12, 32, 512),
    "openai/clip-vit-large-patch14": lambda: clip(1024, 768, 24, 14, 768),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": lambda: clip(1280, 1024, 32, 14, 1024),
    "facebook/dinov2-base": lambda: transformers.Dinov2Config(image_size=518),
    "FacebookAI/roberta-base": lambda: transformers.RobertaConfig(**ROBERTA),
    "FacebookAI/roberta-large": lambda: transformers.RobertaConfig(**ROBERTA, **LARGE),
    "openai-community/gpt2-medium": lambda: transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "Qwen/Qwen2-0.5B": lambda: transformers.Qwen2Config(
        **QWEN2, num_hidden_layers=24, vocab_size=151936, tie_word_embeddings=True
    ),
    "microsoft/Phi-3-mini-4k-instruct": lambda: transformers.Phi3Config(**PHI3, num_hidden_layers=32, vocab_size=32064),
    "meta-llama/Meta-Llama-3-8B": lambda: transformers.LlamaConfig(**LLAMA3, num_hidden_layers=32, vocab_size=128256),
}
"""The models' public configs, as far as they bear on their numbers."""

WHY = {
    "glue-roberta-base": "by VeRA's definition; the paper prints RoBERTa-large's count",
    "commonsense-phi3": "a number for each output; the paper's share is that of one for each input",
    "commonsense-llama3": "a number for each output; the paper's share is that of one for each input",
}
"""Why VeRA's count is not the paper's."""

COLUMNS = (
    Column("suite", "suite"),
    Column("cells", "cells", count),
    Column("numbers in the paper", "compared", count),
    Column("within 3 %", "within", count),
    Column("the others", "others"),
    Column("trained, in millions", "trained"),
)


def row(name, folder):
    """A line of the table.

    Args:
        name: Of the suite.
        folder: Where configs of models are made.
    """
    suite = load_suite(SUITES / f"{name}.yaml")
    model = suite.base["model"]
    here = folder / model.replace("/", "--")
    if not here.is_dir():
        MODELS[model]().save_pretrained(here)
    cells = cells_of(load_suite(SUITES / f"{name}.yaml", ["--base.model", str(here)]))
    compared, within, others, trained = 0, 0, [], {}
    for cell in cells:
        size, printed = size_of(cell), paper_trained(suite, cell.row)
        trained[cell.row] = "unknown" if size.trained is None else f"{size.trained / 1e6:.3g}"
        if printed is None or size.trained is None:
            continue
        compared += 1
        ratio, close = ratio_to_paper(printed, size.trained, size.model)
        within += close
        if not close:
            others.append(f"{cell.row} {ratio:.2f} times: {WHY[name]}")
    return {
        "suite": f"`{name}`",
        "cells": len(cells),
        "compared": compared or None,
        "within": within if compared else None,
        "others": "; ".join(dict.fromkeys(others)) or None,
        "trained": ", ".join(f"{method} {figure}" for method, figure in trained.items()),
    }


def table():
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(path.stem, Path(folder)) for path in sorted(SUITES.glob("*.yaml"))]
    return markdown_table(rows, COLUMNS) + "\n"


def written():
    """The page with the table in it."""
    return with_table(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
