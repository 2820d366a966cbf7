"""Every command of docs/prompts.md works, on a tiny CLIP."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from randlora.cli import main
from randlora.training import validate
from randlora.training.config.schema import config_of

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
    ((name, text),) = [(re.match(r"# (\S+)\n", text)[1], text) for language, text in BLOCKS if language == "yaml"]
    content = yaml.safe_load(text) | {"model": str(clip)}
    content["optimization"] |= {"device": "cpu", "precision": "fp32", "epochs": 1}
    Path(name).write_text(yaml.safe_dump(content), encoding="utf-8")
    commands = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    assert len(commands) == 8
    for line in commands:
        words = shlex.split(line.replace("{name: maple}", "{name: maple, options: {depth: 2}}"))[1:]  # of two blocks
        assert main(words) == 0, capsys.readouterr().err
    for run in ("base", "base-lora"):
        metrics = json.loads(Path("runs", run, "record.json").read_text(encoding="utf-8"))["metrics"]
        assert {"test_accuracy", "test_accuracy_new", "test_harmonic_mean"} <= metrics.keys()


def test_every_method_of_the_suite_is_a_run(image_config, tmp_path):
    """On the tiny CLIP, as studies put a run together: base, the shots' keys, and a method with the budget as its r."""
    suite = yaml.safe_load((Path(__file__).parent.parent / "suites" / "small" / "prompts.yaml").read_text("utf-8"))
    local = {"train": image_config.data.train, "test": image_config.data.test}
    base = suite["base"] | {"model": image_config.model, "output": str(tmp_path / "run")}
    base["optimization"] |= {"precision": "fp32", "device": "cpu"}
    shots = suite["shots"]["4 shots"]["data.shots"]
    assert {"coop", "cocoop", "maple", "promptsrc", "dept"} < suite["methods"].keys()
    for method in suite["methods"].values():
        own = {key: value for key, value in method.items() if key != "learning_rates"}
        if method["name"] in ("lora", "randlora", "hybrid"):
            own |= {**base["method"], "r": suite["budgets"][0]["as_lora"]}
        data = base["data"] | local | {"shots": shots}
        validate(config_of(base | {"data": data, "method": own}))
