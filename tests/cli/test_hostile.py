"""Files and folders that somebody else made, consoles that cannot show everything, numbers too large."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from randlora.cli import main
from randlora.training.run.folder import as_dict
from refusals import refused

pytestmark = pytest.mark.slow

EVIL = "import pathlib\npathlib.Path({marker!r}).touch()\nraise SystemExit('it ran')\n"


@pytest.fixture
def config_file(text_config, tmp_path):
    text_config.optimization.max_steps = 1
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(as_dict(text_config)), encoding="utf-8")
    return path


@pytest.fixture
def run(config_file, tmp_path):
    assert main(["train", str(config_file)]) == 0
    return tmp_path / "run"


def in_shell(command, **environment):
    """Standard output and error of a shell's line in which `randlora` is the tool."""
    tool = f"{sys.executable} -c 'from randlora.cli import main; raise SystemExit(main())'"
    source = Path(main.__code__.co_filename).parents[2]
    shell = f"set -o pipefail; {command.replace('randlora', tool, 1)}"
    variables = {**os.environ, "PYTHONPATH": str(source), **environment}
    done = subprocess.run(["bash", "-c", shell], env=variables, check=False, capture_output=True)  # noqa: S607
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", ["merge", "convert", "evaluate"])
def test_a_run_folder_cannot_ask_for_its_models_code_to_run(run, capsys, tmp_path, name):
    model, marker = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    (model / "evil.py").write_text(EVIL.format(marker=str(marker)), encoding="utf-8")
    auto = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForSequenceClassification": "evil.M"}
    content = {"model_type": "of_its_own", "architectures": ["M"], "auto_map": auto}
    (model / "config.json").write_text(json.dumps(content), encoding="utf-8")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").write_text(
        yaml.safe_dump({**config, "model": str(model), "trust_remote_code": True}), encoding="utf-8"
    )
    more = {
        "merge": ["--output", tmp_path / "out"],
        "convert": ["--to", "lora", "--rank", 2, "--output", tmp_path / "o"],
    }
    refused(capsys, name, run, *more.get(name, []))
    assert not marker.exists()


def test_the_caller_can_ask_for_it(run, capsys):
    assert main(["evaluate", str(run), "--trust-remote-code"]) == 0


@pytest.mark.parametrize(("method", "layers"), [("randlora", 1), ("lora", 3), ("full", 1), ("full", 3), ("vera", 3)])
def test_merging_into_another_model_is_refused(config_file, capsys, tmp_path, bert, method, layers):
    words = ["--method.name", method, *(["--method.r", "4"] if method != "full" else [])]
    assert main(["train", str(config_file), *words]) == 0
    other = tmp_path / "other"
    config = BertConfig.from_pretrained(bert, num_hidden_layers=layers)
    BertModel(config).save_pretrained(other)
    for path in bert.iterdir():
        if path.name.startswith(("tokenizer", "special")):
            (other / path.name).write_bytes(path.read_bytes())
    for words in (["merge", tmp_path / "run", "--output", tmp_path / "out"], ["evaluate", tmp_path / "run"]):
        assert "base model" in refused(capsys, *words, "--model", other)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["randlora", "randlora_a", "nola", "spectral", "hybrid"])
def test_a_rank_larger_than_any_layer_is_named(config_file, capsys, method):
    message = refused(capsys, "train", config_file, "--method.name", method, "--method.r", 10**6)
    assert "1000000" in message
    assert "sides of at least" in message or "larger than every layer" in message


@pytest.mark.parametrize(
    "words",
    [
        ["--optimization.max_steps", 10**30],
        ["--optimization.batch_size", 10**20],
        ["--optimization.epochs", "1e300"],
        ["--optimization.learning_rate", "1e400"],
        ["--method.r", 10**30],
        ["--method.seed", 2**70],
        ["--seed", 2**64],
        ["--data.max_length", 10**20],
        ["--method.alpha", "9" * 400],
    ],
)
def test_numbers_that_no_library_counts_with(config_file, capsys, words, tmp_path):
    assert words[0][2:] in refused(capsys, "train", config_file, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("lora", "bases", "normal"),
        ("lora", "seed", 3),
        ("dora", "strategy", "folded"),
        ("randlora_a", "sparsity", 20),
        ("randlora_a", "strategy", "auto"),
        ("spectral", "bases", "uniform"),
        ("lora_xs", "strategy", "reference"),
        ("nola", "bases", "uniform"),
        ("full", "bases", "uniform"),
        ("full", "alpha", 3),
        ("head", "target_modules", "query"),
        ("head", "seed", 3),
        ("full", "dropout", 0.1),
    ],
)
def test_a_key_without_effect_is_refused(config_file, capsys, method, key, value):
    message = refused(capsys, "train", config_file, "--method.name", method, f"--method.{key}", value)
    assert f"method.{key}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.image_column", "x"), ("data.augment", "false"), ("data.class_names", "[a, b]"), ("encoders", "vision")],
)
def test_a_key_of_another_task_is_refused(config_file, capsys, key, value):
    assert key in refused(capsys, "train", config_file, f"--{key}", value)


def test_bases_of_randlora_a_are_the_ones_asked_for(config_file, tmp_path):
    assert main(["train", str(config_file), "--method.name", "randlora_a", "--method.bases", "normal"]) == 0
    written = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["bases"] == "normal"


def test_names_that_are_not_utf_8(config_file, capsys, tmp_path):
    strange = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff")
    for words in (
        ["train", strange],
        ["train", config_file, "--output", strange],
        ["train", config_file, "--model", strange],
        ["train", config_file, "--data.train", strange],
        ["inspect", strange],
        ["merge", strange, "--output", tmp_path / "out"],
        ["evaluate", strange],
        ["convert", strange, "--output", tmp_path / "out"],
    ):
        refused(capsys, *words)


def test_an_error_of_ours_is_one_line_too(config_file, capsys, monkeypatch):
    def broken(_config):
        raise TypeError("two\nlines \x1b[31m")

    monkeypatch.setattr("randlora.training.train", broken)
    message = refused(capsys, "train", config_file, code=1)
    assert "TypeError: two lines \\x1b[31m" in message
    with pytest.raises(TypeError):
        main(["--traceback", "train", str(config_file)])


def test_an_error_stands_on_a_line_of_its_own_below_a_progress_bar(config_file, capsys):
    capsys.readouterr()
    assert main(["train", str(config_file), "--optimization.learning_rate", "1e30", "--optimization.max_steps=3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("randlora: ")


def test_a_console_without_unicode_and_a_reader_that_leaves(monkeypatch):
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    output, errors = in_shell("randlora methods | head -n 4", **ascii_only)
    assert b"\\u0394W" in output
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", shown)
        assert main(["evaluate", "nöwhere"]) == 2
    line = shown.buffer.getvalue()
    assert line.startswith(b"randlora: n\\xf6where/record.json: ")
    assert line.count(b"\n") == 1


def test_an_adapter_of_another_class_of_model(run, capsys, tmp_path):
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    tensors["base_model.model.classifier.extra"] = torch.ones(3)
    save_file(tensors, run / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "expected a layer for it" in refused(capsys, "evaluate", run)
