"""`randlora analyze` on what it cannot look at: one line, exit code 2, nothing written; and on other kinds of model."""

import json
import shutil
from dataclasses import replace

import pytest

from randlora.cli import main
from randlora.training import MethodConfig, train
from refusals import refused

pytestmark = pytest.mark.slow


def test_what_cannot_be_looked_at_is_refused_in_one_line(text_config, texts, bert, tmp_path, capsys):
    def run(name, **changes):
        train(replace(text_config, output=str(tmp_path / name), **changes))
        return tmp_path / name

    first, second = run("first"), run("second", method=MethodConfig(name="lora", r=2))
    head = run("head", method=MethodConfig(name="head"))
    lines = (texts / "test.csv").read_text().splitlines()
    (texts / "fewer.csv").write_text("\n".join(lines[:9]) + "\n")
    other_data = run("other-data", data=replace(text_config.data, test=str(texts / "fewer.csv")))
    shutil.copytree(bert, tmp_path / "bert2")
    (tmp_path / "bert2" / "note.txt").write_text("another")
    other_base = run("other-base", model=str(tmp_path / "bert2"))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(first, unfinished)
    (unfinished / "record.json").unlink()
    unnamed = tmp_path / "unnamed"
    shutil.copytree(first, unnamed)
    record = json.loads((first / "record.json").read_text(encoding="utf-8"))
    (unnamed / "record.json").write_text(json.dumps({**record, "facts": {}}), encoding="utf-8")
    bare = tmp_path / "bare"
    shutil.copytree(first, bare)
    shutil.rmtree(bare / "adapter")
    full_of = tmp_path / "full"
    full_of.mkdir()
    (full_of / "thesis.txt").write_text("mine")
    out = ("--output", tmp_path / "out")

    for words, message in [
        (("cka", first, other_base), "one base model"),
        (("cka", first, other_data), "the same test data"),
        (("cka", first, head), "trained weights"),
        (("cka", first, unfinished), "a finished run"),
        (("cka", first, bare), "no adapter/"),
        (("cka", first, unnamed), "names of its classes"),
        (("spectrum", unnamed), "names of its classes"),
        (("cka", first, tmp_path / "nothing"), "a run's folder"),
        (("cka", first), "two or more"),
        (("cka", first, first), "twice"),
        (("cka", first, second, "--split", "validation"), "data to look at"),
        (("cka", first, second, "--examples", 3), "4 or more"),
        (("cka", first, second, "--batch-size", 3), "4 or more"),
        (("landscape", first, second), "expected three"),
        (("landscape", first, second, other_base), "one base model"),
        (("landscape", first, second, other_data, "--grid", 1), "2 or more"),
        (("landscape", first, second, other_data, "--margin", "nan"), "0 or more"),
        (("landscape", first, second, other_data, "--examples", 0), "1 or more"),
        (("spectrum", head), "trained weights"),
        (("spectrum", unfinished), "a finished run"),
        (("spectrum", bare), "no adapter/"),
        (("spectrum", first, "--directions", 0), "1 or more"),
        (("spectrum", tmp_path / "nothing"), "adapter"),
        (("spectre", first), "invalid choice"),
        (("transfer", first, other_base, "--data", texts / "test.csv"), "one base model"),
        (("transfer", first, head, "--data", texts / "test.csv"), "trained weights"),
        (("transfer", first, "--data", tmp_path / "nothing.csv"), "nothing.csv"),
        (("transfer", first), "--data"),
    ]:
        assert message in refused(capsys, "analyze", *words, *out), words
        assert not (tmp_path / "out").exists()
    assert "thesis.txt" in refused(capsys, "analyze", "spectrum", first, "--output", full_of)
    assert [path.name for path in full_of.iterdir()] == ["thesis.txt"]
    assert not (first / "analysis").exists()
    assert "thesis.txt" in refused(capsys, "analyze", "spectrum", first, "--output", full_of / "thesis.txt")


def test_data_that_have_changed_since_the_training_are_not_looked_at(text_config, texts, tmp_path, capsys):
    for name in ("a", "b", "c"):
        train(replace(text_config, method=MethodConfig(name="lora", r=2), output=str(tmp_path / name)))
    lines = (texts / "test.csv").read_text().splitlines()
    (texts / "test.csv").write_text("\n".join(lines[:9]) + "\n")
    three = [tmp_path / name for name in "abc"]
    for words in (("cka", *three), ("landscape", *three)):
        assert "changed since" in refused(capsys, "analyze", *words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_validation_data_are_looked_at_where_all_runs_have_some(text_config, tmp_path, capsys):
    held_out = replace(text_config.data, validation=0.25)
    train(replace(text_config, data=held_out, output=str(tmp_path / "with")))
    train(replace(text_config, output=str(tmp_path / "without")))
    for order in (("with", "without"), ("without", "with")):
        words = ["analyze", "cka", *(str(tmp_path / name) for name in order), "--output", str(tmp_path / "out")]
        assert main(words) == 0, capsys.readouterr().err
        assert json.loads((tmp_path / "out" / "cka.json").read_text(encoding="utf-8"))["split"] == "test"


def test_both_towers_of_clip(image_config, tmp_path, capsys):
    data = replace(image_config.data, prompt_templates=["a photo of a {}.", "a {} ."])  # six captions
    for name, method in (("a", MethodConfig(r=4)), ("b", MethodConfig(name="lora", r=2))):
        train(replace(image_config, data=data, method=method, output=str(tmp_path / name)))
    words = ["analyze", "cka", str(tmp_path / "a"), str(tmp_path / "b"), "--batch-size", "6"]
    assert main(words) == 0, capsys.readouterr().err
    numbers = json.loads((tmp_path / "a" / "analysis" / "cka.json").read_text(encoding="utf-8"))
    found = {(row["layer"], row["block"]) for row in numbers["layers"]}
    assert found == {
        (f"clip.{tower}_model.encoder.layers.{layer}.{name}", kind)
        for tower in ("text", "vision")
        for layer in (0, 1)
        for name, kind in (("self_attn", "attention"), ("mlp", "mlp"))
    }
    assert all(-1 < row["a ~ b"] <= 1 + 1e-9 for row in numbers["layers"])


def test_a_language_model_and_an_adapter_folder(sft_config, tmp_path, capsys):
    for name, method in (("a", MethodConfig(r=4)), ("b", MethodConfig(name="dora", r=2))):
        train(replace(sft_config, method=method, output=str(tmp_path / name)))
    words = ["analyze", "cka", str(tmp_path / "a"), str(tmp_path / "b"), "--batch-size", "4"]
    assert main(words) == 0, capsys.readouterr().err
    adapter = str(tmp_path / "b" / "adapter")
    assert main(["analyze", "spectrum", adapter, "--output", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "spectrum.json").read_text(encoding="utf-8"))["layers"]
