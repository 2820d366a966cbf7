"""Runs of prompt methods: trained, resumed, evaluated, inspected; base and new classes for every method."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from randlora.cli import main
from randlora.errors import ConfigError, DataError, LayerError
from randlora.methods import PROMPTS
from randlora.tasks import TASKS
from randlora.tasks.classification.prompted import PromptClassifier
from randlora.training import MethodConfig, evaluate, train, validate
from randlora.training.config import resolve
from randlora.training.inspection import inspect_adapter
from randlora.training.methods import build, is_head
from randlora.training.run.arguments import training_arguments
from randlora.training.run.progress import Progress
from randlora.training.run.trainer import RunTrainer
from tiny import task_of

OPTIONS = {"coop": {"length": 4}, "cocoop": {}, "maple": {"depth": 2}, "promptsrc": {"depth": 2}, "dept": {"depth": 2}}
COLOURS = {"blue": (20, 20, 220), "card": (220, 220, 20), "dark_blue": (20, 20, 120), "green": (30, 200, 30)}
COLOURS |= {"red": (220, 30, 30)}
BASE = 3


def method(name, **options):
    return MethodConfig(name=name, options={**OPTIONS[name], **options})


@pytest.fixture
def config(image_config):
    """Without augmentation, so that what is frozen is computed once."""
    optimization = replace(image_config.optimization, epochs=2)  # of three steps
    return replace(image_config, data=replace(image_config.data, augment=False), optimization=optimization)


@pytest.fixture
def halves(config, tmp_path):
    """Five colours, of which the first three are base classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "five" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + generator.normal(0, 20, (16, 16, 3)), 0, 255)
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    five = tmp_path / "five"
    data = replace(config.data, train=str(five / "train"), test=str(five / "test"), classes="base")
    optimization = replace(config.optimization, epochs=1)
    return replace(config, data=data, optimization=optimization)


def adapter(config):
    return load_file(Path(config.output) / "adapter" / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_learns_saves_and_evaluates_to_its_record(name, config, capsys):
    config.method = method(name)
    record = train(config)
    assert record.metrics["test_loss"] < record.metrics["test_loss_before"]
    assert record.head_parameters == 0
    assert record.trainable_parameters == sum(tensor.numel() for tensor in adapter(config).values())
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    assert main(["inspect", config.output]) == 0
    assert f"{record.trainable_parameters:,} trained numbers" in capsys.readouterr().out
    card = (Path(config.output) / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"| trained numbers | {record.trainable_parameters:,} |" in card
    assert ("| head | DePT" in card) == (name == "dept")


@pytest.mark.slow
def test_images_go_through_a_frozen_tower_once(config, monkeypatch):
    seen, encode = [], PromptClassifier.encode
    monkeypatch.setattr(PromptClassifier, "encode", lambda *words: seen.append(len(words[1])) or encode(*words))
    config.method = method("coop")
    record = train(config)
    assert sum(seen) == 24 + 12  # of the training and the test data, in two epochs and two scores
    monkeypatch.setattr("randlora.tasks.classification.feature_cache.MOST_BYTES", 0)
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-4)
    assert sum(seen) == 24 + 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dept", "promptsrc"])
def test_an_interrupted_run_ends_with_the_same_bits(name, config, interrupted):
    options = {"average_std": 0.5} if name == "promptsrc" else {}
    config = replace(config, method=method(name, **options))
    config.optimization.save_steps = 3  # an epoch's last step
    whole = replace(config, output=f"{config.output}-whole")
    train(whole)
    interrupted(config, 4)
    train(config)
    ours, theirs = adapter(config), adapter(whole)
    assert ours.keys() == theirs.keys()
    for part, tensor in theirs.items():
        assert torch.equal(ours[part], tensor), part


@pytest.mark.slow
def test_prompts_and_an_adapter_are_trained_together(config, interrupted):
    config = replace(config, method=method("coop", adapter={"name": "randlora", "r": 4}))
    config.optimization.save_steps = 3
    interrupted(config, 4)
    record = train(config)
    saved = adapter(config)
    assert record.trainable_parameters == sum(tensor.numel() for tensor in saved.values())
    assert {key.split(".")[2] for key in saved} > {"coop_prompts", "text_model", "vision_model"}
    assert record.metrics["test_loss"] < record.metrics["test_loss_before"]
    assert evaluate(config.output)["loss"] == pytest.approx(record.metrics["test_loss"], rel=1e-5)
    assert inspect_adapter(Path(config.output) / "adapter").trained == record.trainable_parameters


@pytest.mark.slow
def test_a_finished_run_has_the_average_of_its_epochs(config):
    """All weight on the first of two epochs: the prompts are those of a run of one epoch."""
    fixed = replace(config.optimization, scheduler="constant")
    runs = {}
    for epochs in (2, 1):
        options = {"average_mean": 0.5, "average_std": 0.001}
        output = f"{config.output}-{epochs}"
        run = replace(config, method=method("promptsrc", **options), output=output)
        run.optimization = replace(fixed, epochs=float(epochs))
        train(run)
        runs[epochs] = adapter(run)
    for part, tensor in runs[1].items():
        assert torch.allclose(runs[2][part], tensor, rtol=0, atol=1e-7), part


@pytest.mark.slow
def test_base_and_new_classes_are_scored_among_themselves(halves):
    halves = replace(halves, method=method("dept"))
    record = train(halves)
    found = record.metrics
    base, new = found["test_accuracy"], found["test_accuracy_new"]
    assert found["test_harmonic_mean"] == pytest.approx(2 * base * new / (base + new) if base + new else 0)
    assert round(base / 100 * 9, 6) % 1 == 0  # of nine images of base classes
    assert round(new / 100 * 6, 6) % 1 == 0
    assert record.facts["label_names"] == sorted(COLOURS)
    again = evaluate(halves.output)
    assert again["accuracy_new"] == new
    assert again["loss"] == pytest.approx(found["test_loss"], rel=1e-5)


@pytest.mark.slow
def test_new_classes_are_classified_by_a_model_that_has_only_theirs(halves):
    """Frozen CLIP on the new classes alone is a run on their images alone."""
    still = replace(halves.optimization, learning_rate=1e-30, max_steps=1)
    found = train(replace(halves, method=MethodConfig(name="lora", r=2), optimization=still)).metrics
    five = Path(halves.data.train).parent
    for split in ("train", "test"):
        for name in sorted(COLOURS)[:BASE]:
            (five / split / name).rename(five / f"{split}-{name}")
    alone = replace(halves.data, classes="all")
    own = replace(halves, data=alone, method=MethodConfig(name="lora", r=2), output=f"{halves.output}-2")
    record = train(replace(own, optimization=still))
    assert record.metrics["test_accuracy_before"] == found["test_accuracy_new"]


@pytest.mark.parametrize(
    ("chosen", "given", "rate"), [(method("dept"), None, 0.065), (method("cocoop", transfer=True), 0.5, 0.5)]
)
def test_depts_head_is_trained_at_a_rate_of_its_own(chosen, given, rate, config, tmp_path):
    config = resolve(replace(config, method=chosen))
    config.optimization.head_learning_rate = given
    validate(config)
    task = task_of(config, ["dark_blue", "green", "red"])
    trainer = RunTrainer(model=build(task, config.method), args=training_arguments(config, task, tmp_path))
    trainer.begin(Progress("now"), is_head=lambda name: is_head(name, task), optimization=config.optimization)
    groups = trainer.create_optimizer().param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    trained = {name: rates[id(part)] for name, part in trainer.model.named_parameters() if part.requires_grad}
    head = {name: own for name, own in trained.items() if ".transfer." in name}
    assert len(head) == 6  # two scales, two shifts, the weight and the bias
    assert list(head.values()) == pytest.approx([rate] * 6)
    assert {own for name, own in trained.items() if name not in head} == {0.01}


def test_without_a_head_there_is_no_rate_for_one(config):
    optimization = replace(config.optimization, head_learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"head_learning_rate: expected none with image-text, got 0\.1"):
        validate(replace(config, method=method("maple"), optimization=optimization))


def test_coop_begins_as_the_template_that_its_words_are(config):
    pixels, logits = torch.randn(2, 3, 16, 16), []
    for own in (method("coop", words="a photo of a"), MethodConfig(name="lora")):
        resolved = resolve(replace(config, method=own))
        task = task_of(resolved, ["dark_blue", "green", "red"])
        logits.append(build(task, resolved.method).eval()(pixels)["logits"])
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("name", OPTIONS)
def test_other_classes_are_read_by_the_prompts_alone(name, config):
    """A model of three classes takes captions of four others; a transfer head has no row of them and is left out."""
    torch.manual_seed(0)
    own = resolve(replace(config, method=method(name, transfer=True))).method
    task = task_of(config, ["dark_blue", "green", "red"])
    model = build(task, own).eval()
    elsewhere = TASKS["image-text"](config.data, seed=0, facts={"label_names": ["blue", "card", "lost", "money"]})
    elsewhere.backbone, elsewhere.tokenizer, elsewhere.longest = task.backbone, task.tokenizer, task.longest
    elsewhere.prompts = {key: value.repeat(2, 1)[:4] for key, value in task.prompts.items()}
    with pytest.raises(ConfigError, match=r"data\.classes: expected the 3 classes of the training"):
        elsewhere.wrap(model.clip, train_head=False)
    elsewhere.foreign = True
    pixels = torch.randn(2, 3, 16, 16)
    wrapped = elsewhere.wrap(model.clip, train_head=False).eval()
    first = wrapped(pixels)["logits"]
    assert first.shape == (2, 4)
    for part, tells in ((wrapped.prompts.transfer.classifier.weight, False), (wrapped.prompts.context, True)):
        with torch.no_grad():
            part.add_(1.0)
        wrapped.eval()  # captions are computed once
        assert torch.equal(wrapped(pixels)["logits"], first) != tells


def test_shots_of_base_classes_are_those_of_all_classes(halves):
    draws = {}
    for classes in ("all", "base"):
        task = TASKS["image-text"](replace(halves.data, classes=classes, shots=2), seed=3)
        examples = task.examples("train")
        draws[classes] = {examples.row(index): label for index, label in enumerate(examples.labels)}
    assert set(draws["base"].values()) == set(range(BASE))
    assert draws["base"] == {row: label for row, label in draws["all"].items() if label < BASE}


@pytest.mark.parametrize(
    ("chosen", "data", "message"),
    [
        (method("coop", class_specific=True), {"classes": "base"}, r"data\.classes: expected all, with class_specific"),
        (method("maple"), {"encoders": "vision"}, r"data\.encoders: expected both, with prompts, got vision"),
        (MethodConfig(name="coop", r=4), {}, r"method\.r: expected nothing, got 4 \(coop has no such number\)"),
        (MethodConfig(name="coop", target_modules=["fc1"]), {}, r"method\.target_modules: .*coop trains inputs"),
        (MethodConfig(name="coop", options={"lenght": 4}), {}, r"method\.options\.lenght.*length"),
        (method("coop", classes=3), {}, r"method\.options\.classes: expected a known config key"),
        (method("coop", word_ids=[1]), {}, r"method\.options\.word_ids: expected a known config key"),
        (MethodConfig(name="coop", options={"length": 0}), {}, r"method\.options\.length: expected an integer"),
        (MethodConfig(name="coop", options={"position": "mid"}), {}, r"method\.options\.position"),
        (method("coop", adapter={"name": "vera"}), {}, r"method\.options\.adapter\.name: expected one of lora"),
        (method("coop", adapter={"name": "lora", "rank": 2}), {}, r"method\.options\.adapter\.rank"),
        (method("coop", adapter="lora"), {}, r"method\.options\.adapter: expected the keys of a method section"),
        (
            method("coop", adapter={"name": "randlora", "options": {"num_bases": 0}}),
            {},
            r"method\.options\.adapter\.options\.num_bases: expected an integer of 1",
        ),
        (
            method("coop", adapter={"name": "lora", "bases": "normal"}),
            {},
            r"method\.options\.adapter\.bases: expected noth",
        ),
        (
            method("coop", adapter={"name": "lora", "options": {"lora_bia": 1}}),
            {},
            r"method\.options\.adapter\.options\.lora_bia: .*did you mean method\.options\.adapter\.options\.lora_bias",
        ),
        (
            method("coop", adapter={"name": "lora", "target_modules": "(("}),
            {},
            r"method\.options\.adapter\.target_modules: expected a regular expression",
        ),
        (method("promptsrc", adapter={"name": "lora"}), {}, r"method\.options\.adapter: expected none with PromptSRC"),
        (method("coop"), {"classes": "half"}, r"data\.classes"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_anything_is_loaded(chosen, data, message, config):
    config = replace(config, method=chosen, data=replace(config.data, **data))
    with pytest.raises(ConfigError, match=message):
        validate(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("name", OPTIONS)
def test_prompts_are_for_two_towers(name, text_config):
    text_config.method = method(name)
    with pytest.raises(ConfigError, match=r"method\.name: expected a method that adapts layers, .* task image-text"):
        validate(text_config)


@pytest.mark.slow
def test_a_model_of_one_tower_is_refused_by_what_it_is(config, bert):
    with pytest.raises(ConfigError, match=r"model: expected a CLIP model .* and a vision tower, got .*, a bert"):
        train(replace(config, method=method("coop"), model=str(bert)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "data", "message"),
    [
        (MethodConfig(name="coop"), {}, r"data\.class_names: expected names of at most \d+ tokens .* of 16, got"),
        (method("maple", depth=3), {}, r"method\.options\.depth: expected at most 2, the blocks of the towers, got 3"),
        (method("cocoop", length=5), {}, r"words: expected at least 5 tokens"),
        (method("coop"), {"classes": "base"}, r"data\.classes: expected four classes or more"),
        (
            method("coop", adapter={"name": "lora", "target_modules": ["layer_norm1"]}),
            {},
            r"method\.options\.adapter\.target_modules: expected layers that lora can adapt, got \['layer_norm1'\]",
        ),
        (
            method("coop", adapter={"name": "randlora", "r": 500}),
            {},
            r"method\.options\.adapter\.r: expected at most 32",
        ),
    ],
)
def test_data_or_model_that_do_not_fit_are_refused_before_training(chosen, data, message, config):
    config = replace(config, method=chosen, data=replace(config.data, **data))
    with pytest.raises((ConfigError, DataError, LayerError), match=message):
        train(config)
    assert not (Path(config.output) / "checkpoints").exists()


@pytest.mark.slow
def test_new_classes_that_cannot_be_scored_are_refused(halves):
    with pytest.raises(ConfigError, match=r"data\.classes: expected all, with method head"):
        train(replace(halves, method=MethodConfig(name="head")))
    every = replace(halves, data=replace(halves.data, classes="all"), method=method("coop", class_specific=True))
    train(every)
    assert adapter(every)["base_model.model.coop_prompts.context"].shape == (5, 4, 16)
    with pytest.raises(ConfigError, match=r"data\.classes: expected all, with class_specific"):
        evaluate(every.output, ["--data.classes", "base"])
    five = Path(halves.data.test)
    for name in sorted(COLOURS)[BASE:]:
        (five / name).rename(five.parent / f"gone-{name}")
    with pytest.raises(DataError, match=r"expected rows of the new classes, got none \(the first 3 of 5 classes"):
        train(replace(halves, method=method("coop"), output=f"{halves.output}-2"))


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [method("coop", class_specific=True), method("coop", transfer=True)])
def test_what_is_of_each_class_does_not_go_on_with_others(chosen, config):
    config.optimization.max_steps = 1
    train(replace(config, method=chosen))
    data = [Path(config.data.train), Path(config.data.test)]
    for folder in data:
        (folder / "red").rename(folder / "money")
    further = replace(config, method=MethodConfig(), start_from=config.output, output=f"{config.output}-2")
    with pytest.raises(ConfigError, match=r"start_from: expected a run on these classes, got .*, on others \("):
        train(further)
    assert not Path(further.output).exists()
    for folder in data:
        (folder / "money").rename(folder / "red")
    assert train(further).method == "coop"


@pytest.mark.slow
def test_what_becomes_of_weights_only_is_refused_in_one_line(config, tmp_path, capsys):
    config = replace(config, method=method("coop"))
    config.optimization.max_steps = 1
    train(config)
    run, out = config.output, str(tmp_path / "out")
    for words, reason in (
        (["merge", run, "--output", out], "expected an adapter of weights to merge, got one of inputs"),
        (
            ["convert", run, "--to", "lora", "--rank", "2", "--output", out],
            "got RANDLORA_COOP, which changes no weight",
        ),
        (["analyze", "cka", run, run], "method 'coop', which trained inputs"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert reason in error
        assert not Path(out).exists()


def test_the_table_of_methods_has_a_row_for_each(capsys):
    assert main(["methods"]) == 0
    table = capsys.readouterr().out.rpartition("prompts ")[2]
    assert [line.split()[0] for line in table.splitlines()[2:-1]] == [method.name for method in PROMPTS]
    assert "3,555,072" in table


@pytest.mark.slow
def test_a_planned_run_is_inspected(config, tmp_path, capsys):
    path = tmp_path / "config.json"
    content = {"task": "image-text", "model": config.model, "output": "run", "data": {"train": config.data.train}}
    content["data"] |= {"test": config.data.test, "classes": "all"}
    content["method"] = {"name": "promptsrc", "options": {"depth": 2, "transfer": True}}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["inspect", str(path), "--optimization.precision", "fp32", "--optimization.device", "cpu"]) == 0
    out = capsys.readouterr().out
    trained = 2 * 4 * (16 + 16) + 4 * 8 + (8 + 1) * 3
    assert f"promptsrc: 0 layers, {trained} trained numbers" in out
    assert "predicted peak memory" in out
