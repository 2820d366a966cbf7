"""Every command of docs/report.md works, in the order in which they are shown."""

import json
import re
import shlex
from pathlib import Path

from made_runs import made_run
from randlora.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")


def test_commands_run_in_the_order_they_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_run(Path("runs/lora"), history=[])
    for rate in (1e-3, 1e-2):
        made_run(Path(f"runs/search/{rate:g}"), rate=rate, history=[])
    Path("theory").mkdir()
    row = {"ΔW": "random", "numbers": 10, "LoRA": 0.5}
    content = {"title": "Errors", "summary": ["near"], "rows": [row], "methods": ["LoRA"], "more": {"Ranks": [row]}}
    Path("theory/theory.json").write_text(json.dumps(content), encoding="utf-8")
    commands = re.search(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1].splitlines()
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out == "written to page/report.html\n"
    page = Path("page/report.html").read_text(encoding="utf-8")
    assert "Ranks" in page
    assert {path.suffix for path in Path("page/figures").iterdir()} == {".png", ".svg"}
