"""The tool from the outside: words in, exit code, output and files out."""

import json
import shutil
from dataclasses import replace

import peft
import pytest
import torch
import yaml
from safetensors.torch import load as load_file_bytes
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from networks import Net
from randlora import RandLoraConfig
from randlora.cli import main
from randlora.training import load_config
from randlora.training.run.evaluation import trained_model
from randlora.training.run.folder import RunFolder, as_dict
from refusals import assert_says
from tiny import task_of


@pytest.fixture
def config_file(text_config, tmp_path):
    content = as_dict(text_config) | {"output": str(tmp_path / "unused")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def run(config_file, tmp_path):
    assert main(["train", str(config_file), "--output", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def refused(capsys, *words):
    """Run a command that must fail: exit code 2 and one line on standard error, which is returned."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as exit_:  # argparse's own way out
        code = exit_.code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line]
    assert code == 2, captured.err
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("randlora")
    return lines[0]


def logits_of(run, merged):
    """Logits of the first test example: of a run, and of what should be the same model."""
    config = load_config(run / "config.yaml")
    labels = json.loads((run / "record.json").read_text())["facts"]["label_names"]
    task = task_of(config, labels)
    adapted = trained_model(task, config, RunFolder(run)).eval()
    batch = task.collate([task.dataset("test")[0]])
    batch.pop("labels")
    return merged(**batch).logits, adapted(**batch).logits


def test_train_evaluate_inspect_merge(run, capsys, tmp_path, texts):
    record = json.loads((run / "record.json").read_text())
    wanted = "method metrics trainable_parameters adapter_bytes train_seconds step_seconds_median peak_memory_bytes"
    assert set(wanted.split()) | {"seed", "versions", "hardware"} <= set(record)
    assert {"test_accuracy", "test_accuracy_before"} <= set(record["metrics"])
    capsys.readouterr()

    assert main(["evaluate", str(run)]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == record["metrics"]["test_accuracy"]

    assert main(["inspect", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"{record['trainable_parameters']:,} trained numbers" in out

    assert main(["merge", str(run), "--output", str(tmp_path / "merged")]) == 0
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    with torch.no_grad():
        torch.testing.assert_close(*logits_of(run, merged.eval()), rtol=1e-5, atol=1e-6)


def test_merging_a_mean_pooled_run_keeps_its_head_beside_the_encoder(config_file, tmp_path):
    words = [str(config_file), "--data.pooling", "mean", "--output", str(tmp_path / "run")]
    assert main(["train", *words]) == 0
    assert main(["merge", str(tmp_path / "run"), "--output", str(tmp_path / "merged")]) == 0
    AutoModel.from_pretrained(tmp_path / "merged")
    assert set(load_file(tmp_path / "merged" / "head.safetensors")) == {"weight", "bias"}
    # Training goes on from it, with its head.
    again = replace(load_config(tmp_path / "run" / "config.yaml"), model=str(tmp_path / "merged"))
    labels = json.loads((tmp_path / "run" / "record.json").read_text())["facts"]["label_names"]
    with torch.no_grad():
        torch.testing.assert_close(
            *logits_of(tmp_path / "run", task_of(again, labels).backbone.eval()), rtol=1e-5, atol=1e-6
        )


def test_the_same_command_again_returns_the_finished_run(run, config_file, capsys):
    before = (run / "record.json").stat().st_mtime_ns
    assert main(["train", str(config_file), "--output", str(run)]) == 0
    assert (run / "record.json").stat().st_mtime_ns == before


def test_a_plan_is_inspected_before_anything_is_trained(config_file, capsys, tmp_path):
    assert main(["inspect", str(config_file), "--method.r", "8"]) == 0
    out = capsys.readouterr().out
    assert "expected memory" in out
    assert "query" in out
    assert not (tmp_path / "unused").exists()


def test_what_was_trained_is_not_inspected_with_other_values(run, capsys):
    line = refused(capsys, "inspect", run, "--method.r", "8")
    assert_says(line, r"--method\.r: expected a config file with it, got .*, whose training is over")


def test_a_run_without_an_adapter_is_inspected_by_its_config(config_file, capsys, tmp_path):
    assert main(["train", str(config_file), "--method.name", "head", "--output", str(tmp_path / "head")]) == 0
    line = refused(capsys, "inspect", tmp_path / "head")
    assert_says(line, r"head/adapter: expected an adapter, got weights of a method without one \(the config\.yaml")
    assert main(["inspect", str(tmp_path / "head/config.yaml")]) == 0


def test_doctor_finds_everything_well(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "BAD" not in out
    assert "bases=structured" in out


def test_convert(tmp_path, capsys):
    import peft
    from torch import nn

    model = peft.get_peft_model(nn.Sequential(nn.Linear(8, 8)), peft.RandLoraConfig(r=2, target_modules=["0"]))
    model.save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), "--output", str(tmp_path / "ours")]) == 0
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["bases"] == "peft"


def test_convert_of_a_run_says_where_its_adapter_is(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert main(["convert", str(tmp_path), "--output", str(tmp_path / "ours")]) == 2
    assert f"(of this run it is {tmp_path / 'adapter'})" in capsys.readouterr().err


def test_convert_to_lora(run, capsys, tmp_path, bert):
    import peft

    words = ["convert", str(run), "--output", str(tmp_path / "lora"), "--to", "lora"]
    assert "--rank" in refused(capsys, *words)
    assert "at most 16" in refused(capsys, *words, "--rank", "17")
    assert not (tmp_path / "lora").exists()
    assert main([*words, "--rank", "16"]) == 0
    out = capsys.readouterr().out
    assert "encoder.layer.0.attention.self.query" in out
    assert "LoRA of rank 16" in out
    assert "1.0000 of the energy" in out
    base = AutoModelForSequenceClassification.from_pretrained(bert)
    merged = peft.PeftModel.from_pretrained(base, tmp_path / "lora").merge_and_unload().eval()
    assert main(["merge", str(run), "--output", str(tmp_path / "merged")]) == 0
    expected = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(4, 12).reshape(2, 4)
    torch.testing.assert_close(merged(ids).logits, expected(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], "YAML file"),
        (["train", "absent.yaml"], "absent.yaml"),
        (["merge", "absent", "--output", "out"], "absent"),
        (["merge", "absent"], "--output"),
        (["convert", "absent", "--output", "out"], "adapter_config.json"),
        (["convert", "absent", "--output", "out", "--to", "lora", "--rank", "2"], "adapter_config.json"),
        (["convert", "absent", "--output", "out", "--rank", "2"], "--to lora"),
        (["convert", "absent", "--output", "out", "--to", "dora"], "lora"),
        (["inspect", "absent"], "adapter_config.json"),
        (["evaluate", "absent"], "absent"),
        (["doctor", "--fast"], "--fast"),
    ],
)
def test_wrong_words(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["randlora", *words])
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--method.rnk", "3"], "did you mean method.r"),
        (["--optimization.learning_rat=1"], "did you mean optimization.learning_rate"),
        (["--method.r", "much"], "method.r"),
        (["--method.r", "0"], "method.r"),
        (["--method.r", "-4"], "method.r"),
        (["--method.bases", "unifrom"], "uniform"),
        (["--method.target_modules", "nothing_like_it"], "method.target_modules"),
        (["--method.target_modules", ".*LayerNorm"], "LayerNorm"),
        (["--data.train", "absent.csv"], "absent.csv"),
        (["--data.label_column", "intent"], "intent"),
        (["--optimization.device", "cuda"], "optimization.device"),
        (["--model", "./absent"], "absent"),
    ],
)
def test_wrong_values_leave_nothing_behind(config_file, capsys, tmp_path, overrides, message):
    if "cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    out = tmp_path / "out"
    assert message in refused(capsys, "train", config_file, "--output", out, *overrides)
    assert not out.exists()


def test_damaged_and_foreign_adapters(run, capsys, tmp_path):
    weights = run / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    assert "adapter_model.safetensors" in refused(capsys, "evaluate", run)
    assert "adapter_model.safetensors" in refused(capsys, "merge", run, "--output", tmp_path / "out")

    save_file({"some.other.weight": torch.zeros(3)}, weights)
    assert "classifier" in refused(capsys, "evaluate", run)
    head_only = {name: t for name, t in load_file_bytes(whole).items() if "classifier" in name}
    save_file(head_only, weights)
    assert "another base model" in refused(capsys, "evaluate", run)

    weights.write_bytes(whole)
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("randlora_gamma"))
    save_file({**tensors, name: torch.zeros(3, 5)}, weights)
    assert "(3, 5)" in refused(capsys, "merge", run, "--output", tmp_path / "out")

    weights.write_bytes(whole)
    path = run / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"bases_fingerprint": "0123456789abcdef"}))
    assert "bases_fingerprint" in refused(capsys, "evaluate", run)
    path.write_text(json.dumps(config | {"bases_version": 99}))
    assert "newer randlora" in refused(capsys, "evaluate", run)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_holds_another_run(run, config_file, capsys):
    before = sorted(path.name for path in run.rglob("*"))
    assert "another" in refused(capsys, "train", config_file, "--output", run, "--seed", "5")
    assert sorted(path.name for path in run.rglob("*")) == before


def test_merge_does_not_overwrite(run, capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    assert "full" in refused(capsys, "merge", run, "--output", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_base_model_without_its_folder_any_more(run, capsys, tmp_path, bert):
    moved = tmp_path / "elsewhere"
    shutil.copytree(bert, moved)
    assert main(["merge", str(run), "--output", str(tmp_path / "out"), "--model", str(moved)]) == 0
    assert "absent" in refused(capsys, "merge", run, "--output", tmp_path / "out2", "--model", "./absent")


def test_inspect_counts_the_adapter_and_not_the_head_beside_it(config_file, capsys, tmp_path):
    words = ["--method.name", "lora", "--method.r", "2", "--optimization.max_steps", "1"]
    assert main(["train", str(config_file), *words, "--output", str(tmp_path / "lora")]) == 0
    trained = json.loads((tmp_path / "lora" / "record.json").read_text())["trainable_parameters"]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "lora")]) == 0
    assert f"{trained:,} trained numbers" in capsys.readouterr().out


def test_the_nearest_command_is_named_whatever_called_the_tool(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "demo"])
    assert "did you mean 'train'" in refused(capsys, "trian")


def test_a_sum_of_updates_is_not_converted(capsys, tmp_path):
    config = RandLoraConfig(r=4, bases="peft", terms=2, target_modules=["a"])
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path / "adapter")
    assert "terms" in refused(capsys, "convert", tmp_path / "adapter", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
