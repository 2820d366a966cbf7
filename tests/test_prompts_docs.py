"""Every command of docs/prompts.md works, on a tiny CLIP."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from randlora.cli import main
from randlora.studies.cells import cells_of
from randlora.studies.schema import load_suite
from randlora.training import validate

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "prompts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_commands_run_in_the_order_they_are_shown(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for shade, name in enumerate(("red", "green", "blue", "card")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((16, 16, 3), 60 * shade + number, dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    for old, name in (("red", "money"), ("green", "lost")):
        shutil.copytree(tmp_path / "images" / "test" / old, tmp_path / "images" / "other" / name)
    ((name, text),) = [(re.match(r"# (\S+)\n", text)[1], text) for language, text in BLOCKS if language == "yaml"]
    content = yaml.safe_load(text) | {"model": str(clip)}
    content["optimization"] |= {"device": "cpu", "precision": "fp32", "epochs": 1}
    Path(name).write_text(yaml.safe_dump(content), encoding="utf-8")
    commands = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    assert len(commands) == 9
    for line in commands:
        words = shlex.split(line.replace("{name: maple}", "{name: maple, options: {depth: 2}}"))[1:]  # of two blocks
        assert main(words) == 0, capsys.readouterr().err
    for run in ("base", "base-lora"):
        metrics = json.loads(Path("runs", run, "record.json").read_text(encoding="utf-8"))["metrics"]
        assert {"test_accuracy", "test_accuracy_new", "test_harmonic_mean"} <= metrics.keys()


def test_every_method_of_the_suite_is_a_run(image_config, tmp_path):
    """On the tiny CLIP, as studies put a run together."""
    suite = load_suite(Path(__file__).parent.parent / "suites" / "small" / "prompts.yaml")
    cells = [cell for cell in cells_of(suite) if cell.column == "digits 4 shots"]
    assert {cell.config.data.shots for cell in cells} == {4}
    assert {cell.method for cell in cells} >= {"coop", "cocoop", "maple", "promptsrc", "dept", "lora", "randlora"}
    for cell in cells:
        data = replace(cell.config.data, train=image_config.data.train, test=image_config.data.test)
        optimization = replace(cell.config.optimization, precision="fp32", device="cpu")
        here = {"model": image_config.model, "output": str(tmp_path / "run")}
        validate(replace(cell.config, data=data, optimization=optimization, **here))
