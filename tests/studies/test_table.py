import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import ConfigError
from randlora.report.study import FORMATS, study_in_text
from randlora.studies.ranks import mean_ranks
from randlora.studies.study import Study
from randlora.studies.suite import Paper
from randlora.studies.table import study_table
from randlora.studies.worker import work
from study_stand_in import failing_at, suite, train

PAPER = {
    "table": "4",
    "backbone": "RoBERTa-base",
    "conditions": "10 epochs",
    "setting": "full",
    "trained": "params",
    "columns": {"one": "CoLA"},
    "methods": {"lora as_lora=4": "LoRA-4"},
}


@pytest.fixture
def result(tmp_path):
    study = Study(suite(description="Which is best?", paper=[Paper(**PAPER)]), tmp_path / "s", begin=True)
    work(study, run=failing_at(1e-4), poll=0.01)  # the best rate of full fine-tuning
    return study_table(study)


def test_a_cell_has_mean_and_spread_over_seeds_and_the_papers_figure(result):
    cells = {(cell["row"], cell["column"]): cell for cell in result.data["cells"]}
    cell = cells["lora as_lora=4", "one"]
    # See the stand-in: 90 at the best rate, plus the seed and the letters of "label", less 1 on the test split.
    assert cell["values"] == [94.0, 95.0]
    assert (cell["mean"], cell["sd"]) == (94.5, pytest.approx(0.5**0.5))
    assert (cell["learning_rate"], cell["validation"]["0.003"]) == (3e-3, 95.0)
    assert (cell["paper"], cell["paper_table"], cell["trained"]) == ("58.4", "4", 100)
    assert cells["lora as_lora=4", "two"]["paper"] is None
    failed = cells["full", "one"]
    assert (failed["state"], failed["mean"], failed["values"]) == ("failed", None, [])
    assert failed["error"] == "model: expected one that loads, got none"


def test_every_form_says_the_same(result):
    text, page = study_in_text(result), FORMATS["markdown"](result)
    assert text.splitlines()[0].split("  ")[0] == "method"
    lora = next(line for line in text.splitlines() if line.startswith("lora"))
    assert "94.50 ± 0.71" in lora
    assert "58.4" in lora
    assert "full" in text
    assert "failed" in next(line for line in text.splitlines() if line.startswith("full"))
    assert "the paper's: Table 4, RoBERTa-base; 10 epochs" in page
    assert "| lora as_lora=4 | 94.50 ± 0.71 | 58.4 | 95.50 ± 0.71 |" in page
    assert "| lora as_lora=4 | 100 | 0.7M |" in page
    assert "ours: m; 2 epochs; learning rate chosen on the validation split from 3 and more" in page
    assert "Which is best?" in page
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](result))))
    assert len(rows) == 6
    assert (rows[0]["row"], float(rows[0]["mean"])) == ("lora as_lora=4", 94.5)
    assert json.loads(rows[0]["budget"]) == {"as_lora": 4}
    numbers = json.loads(FORMATS["json"](result))
    assert numbers["cells"][0]["values"] == [94.0, 95.0]
    assert "2 of 6 cells failed" in numbers["summary"]


def test_averages_over_all_tasks_stand_beside_the_papers(tmp_path):
    paper = Paper("5", "CLIP-ViT-B/32", settings={"a": "4-shot", "b": "16-shot"}, average="Average")
    paper.methods = {"lora as_lora=4": "LoRA-16"}
    shots = {"a": {"data.shots": 4}, "b": {"data.shots": 16}}
    methods = {"lora": {"name": "lora"}, "randlora": {"name": "randlora"}}
    study = Study(suite(shots=shots, paper=[paper], methods=methods), tmp_path / "s", begin=True)

    def run(config, *, score_test):
        if config.data.shots == 16 and config.data.label_column == "intent" and config.method.name == "randlora":
            raise ConfigError("model")
        return train(config, score_test=score_test)

    work(study, run=run, poll=0.01)
    result = study_table(study)
    found = {(average["row"], average["shots"]): average for average in result.data["averages"]}
    lora = found["lora as_lora=4", "a"]  # 94 and 95 on the one task, one more on the other
    assert (lora["values"], lora["shown"], lora["paper"], lora["tasks"]) == ([94.5, 95.5], 95.0, "73.0", 2)
    assert lora["sd"] == pytest.approx(0.5**0.5)
    assert found["lora as_lora=4", "b"]["paper"] == "78.6"
    assert found["randlora as_lora=4", "a"]["shown"] is not None
    assert found["randlora as_lora=4", "b"]["shown"] is None
    lines = FORMATS["markdown"](result).splitlines()
    assert "| average of 2 a (%) | paper | average of 2 b (%) | paper |" in next(
        line for line in lines if "method" in line
    )
    randlora = next(line for line in lines if line.startswith("| randlora"))
    assert randlora.split("|")[-4:-2] == [" – ", " – "]


def test_the_median_is_shown_where_the_suite_asks_for_it(tmp_path):
    def run(config, *, score_test):
        record = train(config, score_test=score_test)
        if score_test:
            replace(record, metrics={**record.metrics, "test_accuracy": [10.0, 20.0, 90.0][config.seed]}).save(
                Path(config.output)
            )

    results = {}
    for statistic in ("mean", "median"):
        found = suite(tasks={"one": {}}, methods={"lora": {"name": "lora"}}, seeds=[0, 1, 2], statistic=statistic)
        study = Study(found, tmp_path / statistic, begin=True)
        work(study, run=run, poll=0.01)
        results[statistic] = study_table(study)
        (cell,) = results[statistic].data["cells"]
        assert (cell["mean"], cell["median"], cell["shown"]) == (40.0, 20.0, cell[statistic])
    assert "| 20.00 ± 43.59 |" in FORMATS["markdown"](results["median"])
    assert "median ± standard deviation over 3 seeds" in results["median"].summary[0]
    assert "| 40.00 ± 43.59 |" in FORMATS["markdown"](results["mean"])


def test_what_is_missing_is_shown_as_missing(tmp_path):
    result = study_table(Study(suite(), tmp_path / "s"))
    assert "6 of 6 cells missing" in result.summary
    assert result.data["ranks"] == {}
    line = study_in_text(result).splitlines()[2]
    assert line.split() == ["lora", "as_lora=4", "–", "–"]


def test_costs_in_percent_of_a_row_stand_beside_the_papers(tmp_path):
    seconds = {"lora": 0.012, "randlora": 0.015, "full": 0.01}

    def run(config, *, score_test):
        record = replace(train(config, score_test=score_test), step_seconds_median=seconds[config.method.name])
        record.save(Path(config.output))

    rows = {"full": "FT", "lora as_lora=4": "LoRA-32"}
    paper = Paper(table="10", backbone="CLIP-ViT-B/32", setting="percent of FT", methods=rows, costs_of="full")
    study = Study(suite(paper=[paper]), tmp_path / "s", begin=True)
    before = study_table(study)
    assert before.data["costs"]["lora as_lora=4"]["time"] is None
    work(study, run=run, poll=0.01)
    result = study_table(study)
    costs = result.data["costs"]
    assert costs["lora as_lora=4"]["time"] == pytest.approx(120)
    assert (costs["lora as_lora=4"]["paper_time"], costs["lora as_lora=4"]["paper_memory"]) == ("90", "81")
    assert (costs["full"]["time"], costs["full"]["memory"]) == (100, 100)
    assert costs["randlora as_lora=4"]["time"] == pytest.approx(150)
    assert "paper_time" not in costs["randlora as_lora=4"]
    table = FORMATS["markdown"](result)
    assert table.count("% of full") == 2
    assert "| 120 | 90 |" in table


def test_forgetting_is_how_far_the_general_loss_rose(tmp_path):
    def with_general(config, *, score_test):
        record = train(config, score_test=score_test)
        metrics = {**record.metrics, "general_loss_before": 2.0, "general_loss": 2.25}
        replace(record, metrics=metrics).save(Path(config.output))

    study = Study(suite(), tmp_path / "s", begin=True)
    work(study, run=with_general)
    result = study_table(study)
    assert {cell["forgotten"] for cell in result.data["cells"]} == {0.25}
    assert "+0.2500" in study_in_text(result)


SCORES = st.integers(2, 4).flatmap(
    lambda columns: st.lists(st.lists(st.integers(0, 5), min_size=columns, max_size=columns), min_size=1, max_size=4)
)


@given(SCORES, st.booleans())
def test_mean_ranks_share_out_all_places(scores, higher):
    rows = {f"row {i}": {f"c{j}": float(value) for j, value in enumerate(row)} for i, row in enumerate(scores)}
    columns = {f"c{j}": higher for j in range(len(scores[0]))}
    found = mean_ranks(rows, columns)
    assert sum(entry["rank"] for entry in found.values()) == pytest.approx(len(rows) * (len(rows) + 1) / 2)
    for entry in found.values():
        assert 1 <= entry["low"] <= entry["rank"] + 1e-9
        assert entry["rank"] - 1e-9 <= entry["high"] <= len(rows)
    negated = {name: {column: -value for column, value in row.items()} for name, row in rows.items()}
    assert mean_ranks(negated, dict.fromkeys(columns, not higher)) == found


def test_mean_ranks_leave_out_columns_that_are_not_complete():
    scores = {"a": {"x": 1.0, "y": 9.0}, "b": {"x": 2.0}}
    expected = {"a": {"rank": 2.0, "columns": 1}, "b": {"rank": 1.0, "columns": 1}}
    assert mean_ranks(scores, {"x": True, "y": True}) == expected
    assert mean_ranks(scores, {"y": True}) == {}


def test_the_interval_is_that_of_columns_drawn_anew():
    generator = np.random.default_rng(1)
    table = generator.normal(size=(3, 30))
    rows = {str(i): {str(j): float(v) for j, v in enumerate(row)} for i, row in enumerate(table)}
    found = mean_ranks(rows, {str(j): True for j in range(30)})["0"]
    ranks = (table[0] <= table).sum(0)
    error = ranks.std(ddof=1) / 30**0.5
    assert found["rank"] == pytest.approx(ranks.mean())
    assert found["low"] == pytest.approx(ranks.mean() - 1.96 * error, abs=0.25 * error)
    assert found["high"] == pytest.approx(ranks.mean() + 1.96 * error, abs=0.25 * error)


@pytest.mark.parametrize(
    ("epochs", "words"),
    [([10, 1, 2], "; 1 epoch or 2 epochs or 10 epochs; "), ([4, 76, 1, 10, 4], "; 1 to 76 epochs; ")],
)
def test_many_lengths_of_training_are_told_by_the_shortest_and_the_longest(epochs, words, tmp_path):
    tasks = {f"task {place}": {"optimization.epochs": count} for place, count in enumerate(epochs)}
    line = study_table(Study(suite(tasks=tasks), tmp_path / "s")).summary[0]
    assert words in line
