import pytest

from randlora.studies.cells import cells_of
from randlora.studies.sizes import size_of
from randlora.tasks import TASKS
from randlora.training.config import resolve
from randlora.training.methods import build, is_head, load_model
from study_stand_in import suite

METHODS = {
    "lora": {"name": "lora", "r": 2},
    "randlora": {"name": "randlora", "r": 4},
    "as lora": {"name": "randlora", "r": {"as_lora": 2}},
    "hybrid": {"name": "hybrid", "r": {"as_lora": 4}},
    "dora": {"name": "dora", "r": 2},
    "spectral": {"name": "spectral", "r": 2},  # of weights that are decomposed
    "shira": {"name": "shira", "r": 2},  # of places in a weight that are drawn
    "full": {"name": "full"},
    "head": {"name": "head"},
}


def trained_with_weights(config):
    config = resolve(config)
    task = TASKS[config.task].without_data(config.data)
    load_model(task, config)
    named = build(task, config.method).named_parameters()
    return sum(part.numel() for name, part in named if part.requires_grad and not is_head(name, task))


@pytest.mark.parametrize("kind", ["text_config", "image_config", "sft_config"])
def test_trained_numbers_are_those_of_the_run_with_its_weights(request, kind):
    config = request.getfixturevalue(kind)
    base = {"task": config.task, "model": config.model}
    data = {"train": config.data.train, "test": config.data.test, "validation": 0.25}
    found = suite(base={**base, "data": data}, tasks={"one": {}}, methods=METHODS, learning_rates=[1e-3])
    for cell in cells_of(found):
        if cell.method == "head" and config.task == "sft":
            continue
        assert size_of(cell).trained == trained_with_weights(cell.config), cell.row


PROMPTS = {
    "coop": {"name": "coop", "options": {"length": 4}},
    "cocoop": {"name": "cocoop"},
    "maple": {"name": "maple", "options": {"depth": 2}},
    "promptsrc": {"name": "promptsrc", "options": {"depth": 1}},
    "dept": {"name": "dept", "options": {"depth": 2}},
    "coop beside lora": {"name": "coop", "options": {"length": 4, "adapter": {"name": "lora", "r": 2}}},
}


def test_trained_numbers_of_prompts_are_those_of_the_run_but_for_the_rows_of_its_classes(image_config):
    data = {"train": image_config.data.train, "test": image_config.data.test}
    base = {"task": image_config.task, "model": image_config.model, "data": data}
    for cell in cells_of(suite(base=base, tasks={"one": {}}, methods=PROMPTS, learning_rates=[1e-3])):
        rows = 2 * (8 + 1) if cell.method == "dept" else 0  # two classes, features of 8 numbers
        assert size_of(cell).trained == trained_with_weights(cell.config) - rows, cell.row


def test_why_numbers_are_not_known_is_said(image_config):
    data = {"train": image_config.data.train, "test": image_config.data.test}
    base = {"task": image_config.task, "model": image_config.model, "data": data}
    methods = {
        "by class": {"name": "coop", "options": {"class_specific": True}},
        "deep": {"name": "maple"},
        "elsewhere": {"name": "lora", "r": 2, "target_modules": ["nowhere"]},
    }
    found = [
        size_of(cell) for cell in cells_of(suite(base=base, tasks={"one": {}}, methods=methods, learning_rates=[1e-3]))
    ]
    assert {size.trained for size in found} == {None}
    for size, why in zip(found, ("the number of classes", "at most 2, the blocks", "nowhere"), strict=True):
        assert why in size.why


def test_a_model_that_is_not_here_is_unknown():
    found = suite(base={**suite().base, "model": "nobody/has-this"}, learning_rates=[1e-3], methods=METHODS)
    sizes = {size_of(cell) for cell in cells_of(found)}
    assert {size.trained for size in sizes} == {None, 0}
    assert all("nobody/has-this: its config cannot be had here" in size.why for size in sizes if size.trained is None)
