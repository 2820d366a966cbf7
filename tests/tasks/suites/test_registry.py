"""Every data set of the registry is read from a made-up one with its columns."""

import json

import datasets
import PIL.Image
import pytest
import yaml

from randlora.tasks import TASKS
from randlora.tasks.classification.image_text import captions
from randlora.tasks.suites.registry import suite_entries
from randlora.training import load_config

VISION = {name: entry for name, entry in suite_entries().items() if name.startswith("vision/")}

EPOCHS = {
    "cars": 35,
    "dtd": 76,
    "eurosat": 12,
    "gtsrb": 11,
    "mnist": 5,
    "resisc45": 15,
    "sun397": 14,
    "svhn": 4,
    "cifar10": 5,
    "cifar100": 6,
    "imagenet": 10,
    "stl10": 4,
    "food101": 15,
    "caltech101": 10,
    "caltech256": 8,
    "aircraft": 60,
    "flowers102": 40,
    "pets": 5,
    "cub200": 20,
    "voc2007": 10,
    "country211": 15,
    "ucf101": 20,
}
"""The paper's, at 50 % and 100 % of the data."""

BY_NUMBER = {"voc2007", "country211"}
"""Whose labels are numbers without names on the hub; caltech256 and aircraft have strings."""

BY_STRING = {"caltech256", "aircraft"}


def config_of(folder, task, **data):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"task": task, "model": "m", "output": "o", "data": data}))
    return load_config(path)


def made_up(name, entry):
    """Two images of each class, with further columns beside those that are read."""
    kind = {"label": datasets.ClassLabel(names=[f"class_{number}" for number in range(entry.classes)])}
    if name in BY_NUMBER | BY_STRING:
        kind = {"label": datasets.Value("int64" if name in BY_NUMBER else "string")}
    features = {
        entry.data["image_column"]: datasets.Image(),
        entry.data["label_column"]: kind["label"],
        "__key__": datasets.Value("string"),
    }
    labels = [number % entry.classes for number in range(2 * entry.classes)]
    rows = {
        entry.data["image_column"]: [PIL.Image.new("RGB", (2, 2))] * len(labels),
        entry.data["label_column"]: [f"class {label}" for label in labels] if name in BY_STRING else labels,
        "__key__": ["x"] * len(labels),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.mark.parametrize("name", EPOCHS)
def test_an_image_data_set_is_read_and_has_captions(name, tmp_path, monkeypatch):
    entry = VISION[f"vision/{name}"]
    assert entry.epochs == EPOCHS[name]
    asked = []

    def load_dataset(path, subset, *, split, revision):
        asked.append((f"{path}:{split}", subset))
        return made_up(name, entry)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = config_of(tmp_path, "image-text", suite=f"vision/{name}", shots=1)
    task = TASKS[config.task](config.data, seed=0)
    task.check(config.data)
    assert (len(task.examples("train")), len(task.examples("test"))) == (entry.classes, 2 * entry.classes)
    texts = captions(config.data, task.label_names)
    templates = entry.data["prompt_templates"]
    assert len(set(texts)) == len(texts) == entry.classes * len(templates) >= 2 * entry.classes
    assert all(template.count("{}") == 1 and template.endswith(".") for template in templates)
    assert asked == [(entry.data[split], entry.data.get("subset")) for split in ("train", "test")]
    assert (
        config_of(tmp_path, "image-classification", suite=f"vision/{name}").data.label_column
        == entry.data["label_column"]
    )


def test_the_vision_data_sets_are_the_papers():
    assert list(VISION) == [f"vision/{name}" for name in EPOCHS]
    templates = [template for entry in VISION.values() for template in entry.data["prompt_templates"]]
    assert all(len(template) > len("{}.") for template in templates)


@pytest.mark.parametrize("name", ["commonsense/15k", "commonsense/170k"])
def test_the_commonsense_mixtures_are_llm_adapters(name, tmp_path, llama):
    rows = [
        {"instruction": f"Is {number} so?", "input": "", "output": "the correct answer is true", "answer": "true"}
        for number in range(130)
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert suite_entries()[name].data["train"].endswith(f"commonsense_{name.split('/')[1]}.json")
    config = config_of(tmp_path, "sft", suite=name, train=str(tmp_path / "train.json"))
    assert (config.data.max_length, config.data.wording, config.data.train_on_inputs) == (256, "llm_adapters", True)
    task = TASKS["sft"](config.data, seed=0)
    assert (len(task.pool("train")), len(task.pool("validation"))) == (10, 120)


def test_e2e_is_read_from_its_own_files(tmp_path):
    for name in ("trainset", "devset", "testset_w_refs"):
        (tmp_path / f"{name}.csv").write_text('"mr","ref"\n"name[A]","A is here."\n')
    data = {split: str(tmp_path / suite_entries()["e2e"].data[split]) for split in ("train", "validation", "test")}
    config = config_of(tmp_path, "sft", suite="e2e", **data)
    assert config.data.label_smoothing_factor == 0.1
    assert len(TASKS["sft"](config.data, seed=0).pool("test")) == 1
