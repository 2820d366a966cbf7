"""Every command of docs/studies.md works on its suite, with a tiny model: a whole study of real runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from randlora.cli import main
from randlora.studies.schema import load_suite
from randlora.training import rates

PAGE = (Path(__file__).parent.parent / "docs" / "studies.md").read_text(encoding="utf-8")
(SUITE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def test_the_schemas_page_shows_a_suite(tmp_path):
    page = Path(__file__).parent.parent / "src" / "randlora" / "studies" / "README.md"
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    assert load_suite(tmp_path / "suite.yaml").name == "banking"


@pytest.mark.slow
def test_commands_run_in_the_order_they_are_shown(bert, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(texts)
    monkeypatch.setattr(rates, "WIDENINGS", 0)
    values = yaml.safe_load(SUITE)
    values["seeds"] = [0]  # a second one is left to runs that take no time
    values["base"] |= {"model": str(bert), "optimization": {"max_steps": 1, "precision": "fp32", "device": "cpu"}}
    Path("suite.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert len(COMMANDS) == 7
    outputs = []
    for words in COMMANDS:
        if "second.json" in words:  # the same study's table stands for another's
            assert main(["study", "table", "suite.yaml", "--format", "json", "--to", "second.json"]) == 0
            capsys.readouterr()
        assert main(words) == 0, capsys.readouterr().err
        outputs.append(capsys.readouterr().out)
    plan, ran, status, shown, _, ranks, again = outputs
    assert "over 2 columns" in ranks
    assert "2 cells, 4 runs" in plan
    assert "unknown" not in plan
    assert shown.splitlines()[0].startswith("method")
    assert shown in ran
    assert ran == again  # there was nothing left to do
    assert Path("table.md").read_text(encoding="utf-8").startswith("# Study first\n")
    assert len(status.splitlines()) == 6
    assert "6 of 6 runs are over" in status
    runs = Path("runs/study/first/runs")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/record.json")]
    # Only runs at the best rate have scored the test split.
    tested = [record["method"] for record in records if "test_accuracy" in record["metrics"]]
    assert sorted(tested) == ["lora", "randlora"]
    assert len(records) == 2 * 2
    # What the data lack is said before anything is run.
    assert main(["study", "run", "suite.yaml", "--base.data.train", "none.csv", "--output", "new"]) == 2
    assert "intents: data.train: expected a data file" in capsys.readouterr().err
