"""Scores of suites on the page: every number that an evaluation wrote, under its conditions."""

import json
import re

import pytest

from made_runs import made_run
from randlora.report.page.finding import find
from randlora.report.page.grouping import group
from randlora.report.page.suites import suite_tables
from randlora.report.page.write import write_page
from randlora.training import MethodConfig

COMMONSENSE = {
    "protocol": "fixed",
    "wording": "alpaca",
    "num_beams": 4,
    "max_new_tokens": 32,
    "batch_size": 8,
    "limit": 10,
    "tasks": [
        {"task": "boolq", "examples": 10, "generated": 60.0, "likelihood": 70.0, "unanswered": 20.0},
        {"task": "piqa", "examples": 30, "generated": 50.0, "likelihood": 40.0, "unanswered": 0.0},
    ],
    "mean": {"tasks": 2, "generated": 55.0, "likelihood": 55.0},
    "versions": {},
}
E2E = {
    "num_beams": 10,
    "batch_size": 4,
    "limit": None,
    "meanings": 630,
    "scores": [
        {"metric": "BLEU", "value": 68.125, "implementation": "sacrebleu 2.5", "comparable": "yes"},
        {"metric": "METEOR", "value": None, "implementation": "needs Java", "comparable": ""},
    ],
    "answers": ["The <b>Punter</b> is cheap.", "b", "c", "d"],
}


def harness(value=0.5, **score):
    row = {"task": "arc", "metric": "acc", "value": value, "error": 0.0125, "shots": 5, "examples": 20, **score}
    return {"arc": {"scores": [row], "version": 1.0, "limit": None, "batch_size": 8, "lm_eval": "0.4.9"}}


def written(run, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (run / f"{name.replace('_', '-')}.json").write_text(text, encoding="utf-8")


def shown(table):
    """Each row as heading -> text."""
    return [dict(zip([title for title, _ in table.headings], (c.text for c in row), strict=True)) for row in table.rows]


def test_a_row_for_each_run_and_a_column_for_each_score(tmp_path):
    written(made_run(tmp_path / "a"), commonsense_fixed=COMMONSENSE, e2e=E2E, harness=harness())
    other = {**harness(0.25, shots=0), "x": harness(error=None)["arc"] | {"limit": 2}}
    written(made_run(tmp_path / "b", MethodConfig(name="full")), harness=other)
    tables, damaged = suite_tables(group(find([tmp_path])))
    assert damaged == []
    common, e2e, tasks, answers = map(shown, tables)
    assert [(row["run"], row["meaning"], row["answer"]) for row in answers] == [
        ("a", "1", "The <b>Punter</b> is cheap."),
        ("a", "2", "b"),
        ("a", "3", "c"),
    ]
    assert common == [
        {
            "run": "a",
            "method": "lora r=4",
            "boolq": "60.0",
            "piqa": "50.0",
            "mean": "55.0",
            "boolq, likelihood": "70.0",
            "piqa, likelihood": "40.0",
            "mean, likelihood": "55.0",
            "conditions": "2 tasks, 40 questions, no answer to 5.0 %, the first 10 of each, batches of 8",
        }
    ]
    conditions = "630 meanings, 10 beams, batches of 4"
    assert e2e == [{"run": "a", "method": "lora r=4", "BLEU (sacrebleu 2.5)": "68.12", "conditions": conditions}]
    by_run = {row["run"]: row for row in tasks}
    assert by_run["a"]["arc acc, 5 shots"] == "0.5000 ± 0.0125"
    assert (by_run["a"]["arc acc, 0 shots"], by_run["b"]["arc acc, 0 shots"]) == ("–", "0.2500 ± 0.0125")
    assert by_run["b"]["x acc, 5 shots"] == "0.5000"
    assert (
        by_run["b"]["conditions"] == "lm_eval 0.4.9, batches of 8; x: lm_eval 0.4.9, the first 2 of each, batches of 8"
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", "null", {"x": 1}, {"arc": {"scores": [{}]}}, harness("nan?"), harness(error=[1])]
)
def test_a_file_of_another_make_is_passed_over_and_its_run_is_not(content, tmp_path):
    written(made_run(tmp_path / "a"), harness=content)
    found = find([tmp_path])
    tables, damaged = suite_tables(group(found))
    assert tables == []
    (line,) = [*found.passed_over, *damaged]
    assert "harness.json" in line
    assert [run.name for run in found.runs] == ["a"]


def test_the_page_shows_them_escaped(tmp_path):
    content = {f"<b>{name}": value for name, value in harness(float("inf")).items()} | harness()
    written(made_run(tmp_path / "a"), harness=content, e2e=E2E, commonsense_faithful=[])
    page = write_page([tmp_path / "a"], tmp_path / "out").read_text(encoding="utf-8")
    section = page.partition('<section id="suites"')[2].partition("</section>")[0]
    assert re.findall(r'data-value="([^"]*)"', section) == ["68.125", "", "0.5", "1", "2", "3"]
    assert "The &lt;b&gt;Punter" in section
    assert "&lt;b&gt;arc acc, 5 shots" in section
    assert '<a href="#suites">' in page
    assert "commonsense-faithful.json" in page.partition('id="passed-over"')[2]
