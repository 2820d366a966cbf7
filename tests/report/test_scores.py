"""What is known of runs beside their goal: other metrics, forgetting, tokens, what was cut."""

import pytest

from made_runs import made_run
from randlora.report.page.figures import score_by
from randlora.report.page.finding import find
from randlora.report.page.grouping import group
from randlora.report.page.scores import scores_table
from randlora.report.page.tables import general_change
from randlora.training import MethodConfig, SftData

CONFIG = {"task": "sft", "data": SftData(train="t.jsonl", test="u.jsonl")}
HISTORY = [{"loss": 2.0, "num_tokens": 300.0, "step": 10}, {"loss": 1.0, "num_tokens": 5000.0, "step": 20}]


def rows(table):
    return [
        {title: cell.text for (title, _), cell in zip(table.headings, row, strict=True) if title != "method"}
        for row in table.rows
    ]


def made(folder, *, exact, **changes):
    metrics = {"test_loss": 0.5, "test_exact_match": exact, "test_exact_match_before": 1.0}
    metrics |= {"general_loss_before": 4.0, "general_loss": 3.9, "train_examples": 40, "train_examples_cut": 2}
    made_run(folder, goal="loss", unit="", config=CONFIG, history=HISTORY, metrics=metrics, **changes)


def test_a_language_runs_scores_forgetting_tokens_and_cut_examples(tmp_path):
    for seed, exact in ((0, 50.0), (1, 60.0)):
        made(tmp_path / f"{seed}", exact=exact, seed=seed)
    (setting,) = group(find([tmp_path]))
    (row,) = rows(scores_table(setting, "x"))
    assert row == {
        "test exact match": "55 ± 7.071",
        "general loss before": "4.000",
        "general loss after": "3.900",
        "tokens trained on": "5,000",
        "tokens a second": "250",  # in 20 s
        "examples": "40",
        "examples cut": "2",
    }


def test_a_deviation_has_the_decimals_of_its_mean(tmp_path):
    for seed, loss in ((0, 0.69312), (1, 0.69315)):
        metrics = {"test_accuracy": 50.0, "test_loss": loss}
        made_run(tmp_path / f"{seed}", seed=seed, metrics=metrics)
    (setting,) = group(find([tmp_path]))
    assert rows(scores_table(setting, "x")) == [{"test loss": "0.6931 ± 0.0000"}]


def test_what_was_gained_on_other_texts_is_drawn_too(tmp_path):
    made(tmp_path / "a", exact=1.0)
    made(tmp_path / "b", exact=1.0, method=MethodConfig(name="full"))
    (setting,) = group(find([tmp_path]))
    axes = score_by(setting, general_change, "rise", []).axes[0]
    assert [bars.lines[0].get_xdata()[0] for bars in axes.containers] == pytest.approx([-0.1, -0.1])
    assert axes.get_xscale() == "linear"


def test_where_nothing_else_is_known_there_is_no_table(tmp_path):
    made_run(tmp_path / "a", test=80.0)
    (setting,) = group(find([tmp_path]))
    assert scores_table(setting, "x") is None
