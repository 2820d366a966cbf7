"""lm-evaluation-harness on a run: a local task without network, its table and file, and what is refused in one line."""

import functools
import json
import shutil

import pytest
import torch
import yaml

from randlora.cli import main
from randlora.training.language import load_speaker

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

ROWS = [
    {"question": "abc:", "options": ["abc", "q", "abc abc abc"], "answer": 0},
    {"question": "dda:", "options": ["z", "d", "dda dda"], "answer": 1},
    {"question": "a:", "options": ["b", "a a", "aaa"], "answer": 2},
]


def save_task(folder, name, **changes):
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "doc_to_choice": "{{options}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 2.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | changes), encoding="utf-8")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    save_task(folder, "my_letters")
    save_task(folder, "my_words")
    save_task(folder, "my_absent", dataset_kwargs={"data_files": {"test": str(folder / "absent.jsonl")}})
    return folder


@pytest.fixture(autouse=True, scope="module")
def index():
    """One index of the harness' own tasks, whose thousands of files take seconds to read."""
    from lm_eval import tasks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "TaskManager", functools.cache(tasks.TaskManager))
        yield


@pytest.fixture
def run(spoken_run, tmp_path):
    shutil.copytree(spoken_run, tmp_path / "run")
    return tmp_path / "run"


@torch.no_grad()
def literal(run):
    """Accuracy by the sum of log-likelihoods, and by that for each letter, one choice at a time."""
    speaker = load_speaker(str(run))
    right, right_by_length = 0, 0
    for row in ROWS:
        prompt = speaker.tokenizer(row["question"])["input_ids"]
        sums = []
        for option in row["options"]:
            answer = speaker.tokenizer(f" {option}")["input_ids"]  # the harness sets a blank before a choice
            logits = speaker.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(answer)))
        by_length = [value / len(option) for value, option in zip(sums, row["options"], strict=True)]
        right += sums.index(max(sums)) == row["answer"]
        right_by_length += by_length.index(max(by_length)) == row["answer"]
    return right / len(ROWS), right_by_length / len(ROWS)


def test_a_local_task_is_scored_and_kept_beside_others(run, tasks, capsys):
    words = ["evaluate", str(run), "--harness-tasks", str(tasks)]
    assert main([*words, "--harness", "my_letters"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2:-1]] == ["my_letters", "my_letters"]
    content = json.loads((run / "harness.json").read_text(encoding="utf-8"))
    found = {score["metric"]: score["value"] for score in content["my_letters"]["scores"]}
    assert (found["acc"], found["acc_norm"]) == pytest.approx(literal(run))
    assert {score["examples"] for score in content["my_letters"]["scores"]} == {3}
    assert (content["my_letters"]["version"], content["my_letters"]["limit"]) == (2.0, None)

    assert main([*words, "--harness", "my_words,my_letters", "--limit", "2", "--batch-size", "1"]) == 0
    later = json.loads((run / "harness.json").read_text(encoding="utf-8"))
    assert {name: task["limit"] for name, task in later.items()} == {"my_letters": 2, "my_words": 2}
    assert main([*words, "--harness", "my_let*"]) == 0
    last = json.loads((run / "harness.json").read_text(encoding="utf-8"))
    assert last == {**later, "my_letters": content["my_letters"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("my_leters", "--harness: expected names of tasks that the harness has, got 'my_leters' (did you mean my_l"),
        ("my_letters,", "got ''"),
        ("arc_easy", "--harness arc_easy: expected a task whose data can be had, got ConnectionError"),
        ("my_letters,my_absent", "--harness my_absent: expected a task whose data can be had, got FileNotFoundError"),
    ],
)
def test_what_cannot_be_scored_is_one_line_and_leaves_nothing(run, tasks, capsys, names, message):
    before = sorted(path.name for path in run.iterdir())
    assert main(["evaluate", str(run), "--harness", names, "--harness-tasks", str(tasks)]) == 2
    captured = capsys.readouterr()
    (line,) = (line for line in captured.err.splitlines() if line.startswith("randlora: "))
    assert message in line
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(path.name for path in run.iterdir()) == before
