"""Every command of docs/rank-search.md works, on a tiny BERT."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from randlora.cli import main
from randlora.training.run.record import Record

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "rank-search.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_commands_run_in_the_order_they_are_shown(bert, texts, monkeypatch, capsys):
    monkeypatch.chdir(texts)
    ((name, text),) = [(re.match(r"# (\S+)\n", text)[1], text) for language, text in BLOCKS if language == "yaml"]
    content = yaml.safe_load(text) | {"model": str(bert)}
    content["method"]["options"]["search_steps"] = 3
    content["optimization"] |= {"device": "cpu", "precision": "fp32", "max_steps": 2}
    Path(name).write_text(yaml.safe_dump(content), encoding="utf-8")
    commands = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    assert len(commands) == 6
    for line in commands:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "autolora, in its search" in shown
    found = [Record.load(Path("runs", run)).rank_search for run in ("autolora", "first-order")]
    assert [search["look_ahead"] for search in found] == [True, False]
    assert len(Record.load(Path("runs", "budgets")).rank_search["gains"]) == 13
    assert "encoder.layer.1.attention.self.query" in shown
