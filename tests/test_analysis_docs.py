"""Every command of docs/analysis.md works, on three tiny runs."""

import json
import re
import shlex
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from forward_only import forward_only
from randlora.cli import main
from randlora.training import MethodConfig, train

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "analysis.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
METHODS = {"randlora": MethodConfig(r=4), "lora": MethodConfig(name="lora", r=2), "full": MethodConfig(name="full")}


def test_commands_run_in_the_order_they_are_shown(text_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, method in METHODS.items():
        train(replace(text_config, method=method, output=f"runs/{name}"))
    assert len(COMMANDS) == 6
    lines = ["text,label", "where is my money,pay", "my card,lost_card"]
    Path("other.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr("randlora.analysis.theory.RANKS", (2,))  # the other budgets take half a minute
    for words in COMMANDS:
        with nullcontext() if words[1] == "theory" else forward_only():  # which trains
            assert main(words) == 0, capsys.readouterr().err
    written = sorted(path.name for path in (tmp_path / "runs" / "randlora" / "analysis").iterdir())
    endings = ["json", "md", "png", "svg"]
    expected = [f"{name}.{kind}" for name in ("cka", "landscape", "spectrum", "transfer") for kind in endings]
    assert written == sorted([*expected, "landscape.html"])
    assert {path.suffix for path in Path("theory").iterdir()} == {".json", ".md", ".png", ".svg"}
    numbers = json.loads(Path("flat/landscape.json").read_text(encoding="utf-8"))
    assert numbers["plane"] == "orthonormal"
    assert len(numbers["losses"]) == 5
    page = Path("flat/landscape.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)
    # The run's folder is still one.
    assert main(["evaluate", "runs/randlora"]) == 0
