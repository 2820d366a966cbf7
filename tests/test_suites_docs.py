"""Every config and command of docs/suites.md works on tiny stand-ins, and its tables are what the code says."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from randlora.cli import main
from suites_table import PAGE, written

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_table_is_the_registrys():
    assert written() == TEXT, "write it anew: python tests/suites_table.py"


def test_the_papers_suites_are_all_named():
    section = TEXT.partition("## The paper's study")[2]
    named = set()
    for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE):
        first, *others = (name.strip(" `") for name in cell.split(","))
        stem = first.rpartition("-")[0]
        named |= {first, *(stem + name if name.startswith("-") else name for name in others)}
    assert named == {path.stem for path in (PAGE.parent.parent / "suites" / "paper").glob("*.yaml")}


@pytest.mark.slow
def test_commands_run_in_the_order_they_are_shown(bert, llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: None)
    for language, text in BLOCKS:
        if language == "yaml":
            content = yaml.safe_load(text)
            content["model"] = str(llama if content["task"] == "sft" else bert)
            content["method"]["r"] = 4
            content["data"] |= {"general": False} if content["task"] == "sft" else {}
            content.setdefault("optimization", {})
            content["optimization"] |= {"device": "cpu", "precision": "fp32", "max_steps": 2}
            Path(re.match(r"# (\S+)\n", text)[1]).write_text(yaml.safe_dump(content), encoding="utf-8")
    Path("CoLA").mkdir()
    for name in ("train", "dev"):
        lines = [f"gj04\t{number % 2}\t\tmy card is lost {'now' * (number % 2)}" for number in range(20)]
        Path("CoLA", f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("trainset", "devset", "testset_w_refs"):
        Path(f"{name}.csv").write_text('mr,ref\n"name[A], food[B]",A has B.\n"name[C]",It is C.\n', encoding="utf-8")
    commands = [shlex.split(line)[1:] for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    assert len(commands) == 4
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    assert "test_matthews_correlation" in json.loads(Path("runs/cola/record.json").read_text())["metrics"]
    assert len(json.loads(Path("runs/e2e/e2e.json").read_text())["answers"]) == 2
