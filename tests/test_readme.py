"""Every snippet and command of README.md works, on tiny stand-ins for its models and data."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from randlora.cli import main
from randlora.training.run.folder import as_dict

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_python_example_runs_as_it_stands(monkeypatch, tmp_path, capsys):
    tiny = LlamaConfig(hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, vocab_size=64)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda _name: LlamaForCausalLM(tiny))
    monkeypatch.chdir(tmp_path)
    (source,) = (text for language, text in BLOCKS if language == "python")
    names = {}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102 - our own text
    assert "trainable params" in capsys.readouterr().out
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert type(names["model"]) is LlamaForCausalLM


@pytest.mark.slow
def test_every_command_runs_in_the_order_it_is_shown(monkeypatch, tmp_path, text_config, capsys):
    work = tmp_path / "work"
    (work / "suites").mkdir(parents=True)
    content = as_dict(text_config) | {"output": "runs/default"}
    (work / "suites" / "banking77.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.chdir(work)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    commands = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines() if line]
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        if words[0] == "randlora":
            assert main(words[1:]) == 0, capsys.readouterr().err
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
        else:  # pip install: the extra must exist
            assert words[:2] == ["pip", "install"]
            assert re.search(rf"^{words[2].split('[')[1].rstrip(']')} = ", extras, re.MULTILINE), command
    assert (work / "merged" / "model.safetensors").is_file()
