"""Every snippet and command of docs/language-models.md works, on a tiny stand-in for its model and data."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from randlora.cli import main

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "language-models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def work(llama, conversations, tmp_path, monkeypatch):
    """A folder with the page's configs, for the tiny model."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes((conversations / "train.jsonl").read_bytes())
    pairs = [{"prompt": f"{letter} now", "chosen": " yes", "rejected": " no"} for letter in "abcdefghij"]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    for language, text in BLOCKS:
        if language == "yaml":
            name = re.match(r"# (\S+)\n", text)[1]
            content = yaml.safe_load(text)
            assert content["model"] == MODEL
            content["model"] = str(llama)
            content["data"]["max_length"] = 64  # the tiny model reads no more than 128
            content["optimization"] |= {"device": "cpu", "precision": "fp32"}
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def test_commands_run_in_the_order_they_are_shown(work, capsys):
    commands = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    run = [shlex.split(line)[1:] for line in commands if line.startswith("randlora ")]
    assert len(run) == 5
    for words in run:
        assert main(words) == 0, capsys.readouterr().err
    assert (work / "merged" / "model.safetensors").is_file()
    for name in ("dpo.yaml", "quiz.yaml"):
        assert main(["train", name]) == 0, capsys.readouterr().err
    assert "validation_exact_match" in json.loads((work / "runs" / "quiz" / "record.json").read_text())["metrics"]


def test_the_python_example_runs(work, llama, capsys):
    (source,) = (text for language, text in BLOCKS if language == "python")
    source = (
        source.replace(MODEL, str(llama))
        .replace("validation=0.1", "validation=0.1, max_length=64")
        .replace("epochs=2", "epochs=2, device='cpu', precision='fp32'")
    )
    exec(compile(source, "language-models.md", "exec"), {})  # noqa: S102 - our own text
    assert len(capsys.readouterr().out.split()) == 2
