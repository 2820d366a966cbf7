"""Scores on data that a run did not see: as `evaluate` has them, before and after, for every kind of task."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from made_runs import made_run
from randlora.analysis.transfer import analyze_transfer
from randlora.cli import main
from randlora.errors import ConfigError, DataError
from randlora.training import MethodConfig, evaluate, train
from randlora.training.run.folder import as_dict
from tiny import COLOURS

pytestmark = pytest.mark.slow


def test_a_classifier_is_scored_on_its_own_classes(text_config, texts, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + "where is my money,lost_card\nmy card,pay\n" * 4)
    record = train(text_config)
    row = analyze_transfer([text_config.output], str(other)).rows[0]
    found = evaluate(text_config.output, ["--data.test", str(other)])
    assert (row["after"], row["loss after"]) == pytest.approx((found["accuracy"], found["loss"]))
    assert (row["own before"], row["own after"]) == (record.before, record.after)
    # On the run's own data it is what the record says, before and after.
    same = analyze_transfer([text_config.output], text_config.data.test).rows[0]
    assert (same["before"], same["after"]) == (record.before, record.after)
    (tmp_path / "foreign.csv").write_text("text,label\nmy money,other\n")
    with pytest.raises(DataError, match="seen in training"):
        analyze_transfer([text_config.output], str(tmp_path / "foreign.csv"))


def test_clip_is_scored_on_classes_that_it_never_trained_on(image_config, tmp_path, capsys):
    runs = [tmp_path / name for name in ("a", "b")]
    for run, method in zip(runs, (MethodConfig(r=4), MethodConfig(name="full")), strict=True):
        short = replace(image_config.optimization, max_steps=4)
        train(replace(image_config, method=method, output=str(run), optimization=short))
    other = tmp_path / "test2"
    for old, new in (("red", "money"), ("green", "card")):
        (other / new).mkdir(parents=True)
        for path in (tmp_path / "test" / old).iterdir():
            (other / new / path.name).write_bytes(path.read_bytes())
    words = ["analyze", "transfer", *map(str, runs), "--data", str(other), "--output", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "transfer.json").read_text(encoding="utf-8"))["rows"]
    assert [row["run"] for row in rows] == ["a", "b"]
    assert rows[0]["before"] == rows[1]["before"]
    assert rows[0]["loss after"] != rows[0]["loss before"] == rows[1]["loss before"]


def other_classes(tmp_path):
    """Two of the three colours under other names, and one more that looks like the third."""
    other = tmp_path / "others"
    for old, new in (("dark_blue", "blue"), ("red", "money"), ("green", "card"), ("red", "lost")):
        shutil.copytree(tmp_path / "test" / old, other / new)
    return other


def test_learned_prompts_are_scored_around_the_names_of_other_classes(image_config, tmp_path, capsys):
    """DePT's head is left out, though it is there: what remains is MaPLe with the same prompts."""
    quick = replace(image_config.optimization, max_steps=2)
    method = MethodConfig(name="dept", options={"depth": 2, "adapter": {"name": "lora", "r": 2}})
    record = train(replace(image_config, method=method, optimization=quick))
    words = ["analyze", "transfer", image_config.output, "--data", str(other_classes(tmp_path))]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    (row,) = json.loads((tmp_path / "out" / "transfer.json").read_text(encoding="utf-8"))["rows"]
    assert row["loss after"] != row["loss before"]
    assert row["own after"] == record.after
    # On the classes of the training it is the run's own score, with the head.
    same = analyze_transfer([image_config.output], image_config.data.test).rows[0]
    assert same["loss after"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    assert same["loss before"] == pytest.approx(record.metrics["test_loss_before"], rel=1e-5)


def test_a_context_of_each_class_has_no_use_elsewhere(image_config, tmp_path):
    """It is refused before a model is loaded; there is none."""
    method = MethodConfig(name="coop", options={"length": 4, "class_specific": True})
    config = {"task": "image-text", "model": "nowhere", "data": image_config.data}
    run = made_run(tmp_path / "own", method, config=config, facts={"label_names": sorted(COLOURS)})
    (run / "adapter").mkdir()
    with pytest.raises(ConfigError, match=r"--data: expected the classes of the training, got others \(own has a"):
        analyze_transfer([run], str(other_classes(tmp_path)))
    with pytest.raises(ConfigError, match="nowhere"):  # its own classes are another matter
        analyze_transfer([run], image_config.data.test)


def test_a_language_model_by_a_config_and_what_it_has_forgotten(sft_config, tmp_path):
    record = train(sft_config)
    other = tmp_path / "other.jsonl"
    turns = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "cba"}]
    other.write_text(json.dumps({"messages": turns}) + "\n")
    config = as_dict(replace(sft_config, data=replace(sft_config.data, test=str(other))))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    row = analyze_transfer([sft_config.output], str(tmp_path / "other.yaml")).rows[0]
    assert row["general_loss after"] == pytest.approx(record.metrics["general_loss"])
    assert row["general_loss before"] == pytest.approx(record.metrics["general_loss_before"])
    assert row["after"] != row["before"]
    (tmp_path / "text.yaml").write_text("task: text-classification\n")
    with pytest.raises(ConfigError, match="a config of task sft"):
        analyze_transfer([sft_config.output], str(tmp_path / "text.yaml"))
