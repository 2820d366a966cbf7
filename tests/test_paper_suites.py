"""The suites of the paper's study: they are studies, and train as many numbers as the paper's tables say."""

from pathlib import Path

import pytest

import paper_counts
from paper_counts import BEGIN, PAGE
from randlora.cli import main
from randlora.studies import peak_memory
from randlora.studies.cells import cells_of
from randlora.studies.paper import paper_trained, ratio_to_paper
from randlora.studies.schema import load_suite
from randlora.studies.shapes import stand_in
from randlora.studies.sizes import size_of
from randlora.training.config import resolve
from randlora.training.prediction import Prediction, predict_from_config

FOLDER = Path(__file__).parent.parent / "suites" / "paper"
SUITES = sorted(path.name for path in FOLDER.glob("*.yaml"))


def test_suites_are_studies():
    assert len(SUITES) == 18
    for name in SUITES:
        assert f"{load_suite(FOLDER / name).name}.yaml" == name


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Where stand-ins of the paper's models are: what one suite has counted on them, another need not count again."""
    return tmp_path_factory.mktemp("models")


VERA = {"commonsense-llama3": 950_272, "commonsense-phi3": 1_015_808, "glue-roberta-base": 156_672}
"""VeRA's numbers by its definition, one for each output and each rank. The paper has, of the language models, one for
each input and each rank, and for RoBERTa-base RoBERTa-large's."""


@pytest.mark.parametrize("name", SUITES)
def test_every_cell_but_veras_trains_as_many_numbers_as_the_papers(name, models):
    suite = load_suite(FOLDER / name)
    here = load_suite(FOLDER / name, ["--base.model", str(stand_in(suite.base["model"], models))])
    name = suite.name
    for cell in {cell.row: cell for cell in cells_of(here)}.values():
        size, printed = size_of(cell), paper_trained(suite, cell.row)
        assert size.trained or "the number of classes" in size.why
        if printed is not None:
            within = ratio_to_paper(printed, size.trained, size.model)[1]
            assert within == (name not in VERA or not cell.row.startswith("VeRA")), cell.row
            assert within or size.trained == VERA[name]
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2]
    (line,) = (line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [("–" if value is None else str(value)) for value in paper_counts.row(name, models).values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cost-clip-vit-b32", "dinov2-vit-b14", "e2e-gpt2", "glue-roberta-base"])
def test_a_step_on_a_stand_in_is_followed(name, tmp_path):
    """Its tokenizer and preprocessing are such as a run takes."""
    suite = load_suite(FOLDER / f"{name}.yaml")
    suite = load_suite(FOLDER / f"{name}.yaml", ["--base.model", str(stand_in(suite.base["model"], tmp_path))])
    cell = next(cell for cell in cells_of(suite) if cell.method.startswith("LoRA"))
    found = predict_from_config(resolve(cell.config))
    assert found.peak_bytes is not None, found.assumed


@pytest.mark.filterwarnings("ignore")
def test_table_5_is_planned_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peak_memory, "predict_from_config", lambda _: Prediction(2**30, 0, "steps of every kind"))
    words = ["--output", str(tmp_path / "s"), "--shots", "{4-shot: {data.shots: 4}}"]
    assert main(["study", "run", str(FOLDER / "prompt-tuning.yaml"), "--dry-run", *words]) == 0
    out = capsys.readouterr().out
    # As docs/prompts.md has them.
    numbers = {"CoOp": 8192, "CoCoOp": 35360, "MaPLe": 3555072, "PromptSRC": 46080, "MaPLe+DePT": 3557120}
    for method, count in numbers.items():
        lines = [line.split() for line in out.splitlines() if f" {method} " in line and "unknown: " not in line]
        assert [line[3] for line in lines] == [f"{count:,}"] * 11, method
    assert "77 cells, 77 runs" in out
    assert "openai/clip-vit-base-patch32 is not on this machine: planned by its published shapes" in out
    assert out.count("1.0 GiB") == 77
    assert f"peak memory is predicted for steps of every kind; {peak_memory.BETWEEN}" in out
