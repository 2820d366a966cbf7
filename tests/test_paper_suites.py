"""The suites of the paper's study: they are studies, and train as many numbers as the paper's tables say."""

from pathlib import Path

import pytest
import torch
import transformers
import yaml

import paper_counts
from paper_counts import LARGE, LLAMA3, PAGE, PHI3, QWEN2
from randlora.cli import main
from randlora.tasks import TASKS
from randlora.training import MethodConfig, TrainConfig
from randlora.training.config import resolve
from randlora.training.methods import build, is_head

FOLDER = Path(__file__).parent.parent / "suites" / "paper"
SUITES = sorted(path.name for path in FOLDER.glob("*.yaml"))

CAUSAL, CLASSIFIER = transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification
MODELS = {
    "commonsense-qwen2": (CAUSAL, transformers.Qwen2Config(**QWEN2, vocab_size=151936, tie_word_embeddings=True), 24),
    "commonsense-phi3": (CAUSAL, transformers.Phi3Config(**PHI3, vocab_size=32064), 32),
    "commonsense-llama3": (CAUSAL, transformers.LlamaConfig(**LLAMA3, vocab_size=128256), 32),
    "glue-roberta-base": (CLASSIFIER, transformers.RobertaConfig(), 12),
    "glue-roberta-large": (CLASSIFIER, transformers.RobertaConfig(**LARGE), 24),
}

PERCENT = {
    "commonsense-qwen2": {
        "NoLA": "0.05",
        "LoRA-16": "1.18",
        "LoRA-32": "2.33",
        "RandLoRA-10": "1.18",
        "RandLoRA-5": "2.33",
    },
    "commonsense-phi3": {
        "NoLA": "0.005",
        "LoRA-16": "0.57",
        "LoRA-32": "1.14",
        "LoRA-64": "2.28",
        "RandLoRA-40": "0.58",
        "RandLoRA-20": "1.16",
        "RandLoRA-10": "2.29",
    },
    "commonsense-llama3": {
        "NoLA": "0.004",
        "LoRA-16": "0.35",
        "LoRA-32": "0.7",
        "LoRA-64": "1.4",
        "RandLoRA-60": "0.36",
        "RandLoRA-30": "0.7",
        "RandLoRA-15": "1.4",
    },
}
"""Table 15: trained numbers in percent of the model's and these."""

MILLIONS = {
    "glue-roberta-base": {"LoRA-4": "0.7", "RandLoRA-64": "0.7"},
    "glue-roberta-large": {"LoRA-4": "1.8", "RandLoRA-100": "1.8"},
}
"""Table 4."""

VERA = {
    "commonsense-qwen2": (288_768, "0.06"),
    "commonsense-phi3": (1_015_808, "0.015"),
    "commonsense-llama3": (950_272, "0.014"),
    "glue-roberta-base": (156_672, "0.26"),
    "glue-roberta-large": (258_048, "0.26"),
}
"""VeRA's numbers by its definition, one for each output and each rank, and the paper's figure. For the language models
that is one for each input and each rank (0.0146 % of Phi-3, 0.0143 % of Llama 3); for RoBERTa-base it is
RoBERTa-large's."""


def adapted(name, row, layers):
    """A model of so many layers with a suite's method on it: its own numbers, and the adapter's."""
    kind, config, _ = MODELS[name]
    config.num_hidden_layers = layers
    suite = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    base = suite["base"]
    section = {**base.get("method", {}), **suite["methods"][row]}
    method = resolve(TrainConfig(task=base["task"], method=MethodConfig(**section))).method
    task = TASKS[base["task"]].without_data(TASKS[base["task"]].data_class())
    with torch.device("meta"):
        task.backbone = kind.from_config(config)
        task.head = ("classifier",) if hasattr(task.backbone, "classifier") else ()
        own = sum(part.numel() for part in task.backbone.parameters())
        found = build(task, method).named_parameters()
    return own, sum(part.numel() for key, part in found if part.requires_grad and not is_head(key, task))


def counts(name, row):
    """Numbers of the whole model, and trained ones: all layers are alike."""
    (one, trained), (two, twice) = adapted(name, row, 1), adapted(name, row, 2)
    layers = MODELS[name][2]
    return one + (layers - 1) * (two - one), trained + (layers - 1) * (twice - trained)


def close(value, printed):
    """Whether a value is within 3 % of what prints as the paper's figure."""
    places = len(printed.partition(".")[2])
    return abs(value - float(printed)) <= 0.03 * float(printed) + 0.5 * 10**-places


@pytest.mark.parametrize("name", PERCENT)
def test_language_models_train_the_papers_share(name):
    for row, printed in PERCENT[name].items():
        model, trained = counts(name, row)
        assert close(100 * trained / (model + trained), printed), (row, 100 * trained / (model + trained))


@pytest.mark.parametrize("name", MILLIONS)
def test_encoders_train_the_papers_millions(name):
    for row, printed in MILLIONS[name].items():
        assert close(counts(name, row)[1] / 1e6, printed), row


@pytest.mark.parametrize("name", VERA)
def test_vera_trains_what_its_definition_says(name):
    expected, printed = VERA[name]
    (row,) = (row for row in yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["methods"] if row.startswith("VeRA"))
    model, trained = counts(name, row)
    assert trained == expected
    value = trained / 1e6 if name.startswith("glue") else 100 * trained / (model + trained)
    assert close(value, printed) == (name in {"commonsense-qwen2", "glue-roberta-large"})


def test_suites_are_studies():
    schema = pytest.importorskip("randlora.studies.schema")
    assert len(SUITES) == 18
    for name in SUITES:
        suite = schema.load_suite(FOLDER / name)
        assert f"{suite.name}.yaml" == name


def test_counts_on_the_page_are_those_of_the_suites(tmp_path):
    lines = {
        line.split("`")[1]: line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    }
    assert {f"{name}.yaml" for name in lines} >= set(SUITES)
    for name in ("glue-roberta-base", "e2e-gpt2"):
        cells = [cell.strip() for cell in lines[name].strip("|").split("|")]
        assert cells == [("–" if value is None else str(value)) for value in paper_counts.row(name, tmp_path).values()]


@pytest.mark.filterwarnings("ignore")
def test_table_5_is_planned_whole(tmp_path, capsys):
    paper_counts.clip(768, 512, 12, 32, 512).save_pretrained(tmp_path / "clip")
    words = [
        "--base.model",
        str(tmp_path / "clip"),
        "--output",
        str(tmp_path / "s"),
        "--shots",
        "{4-shot: {data.shots: 4}}",
    ]
    assert main(["study", "run", str(FOLDER / "prompt-tuning.yaml"), "--dry-run", *words]) == 0
    out = capsys.readouterr().out
    # As docs/prompts.md has them.
    numbers = {"CoOp": 8192, "CoCoOp": 35360, "MaPLe": 3555072, "PromptSRC": 46080, "MaPLe+DePT": 3557120}
    for method, count in numbers.items():
        lines = [line.split() for line in out.splitlines() if f" {method} " in line and "unknown: " not in line]
        assert [line[3] for line in lines] == [f"{count:,}"] * 11, method
    assert "77 cells, 77 runs" in out
    assert "unknown: memory of LoRA-16, RandLoRA-10, CoOp" in out
