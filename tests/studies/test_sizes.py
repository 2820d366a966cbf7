import pytest

from randlora.studies.cells import cells_of
from randlora.studies.sizes import trained_numbers
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
        assert trained_numbers(cell) == trained_with_weights(cell.config), cell.row


def test_a_model_that_is_not_here_is_unknown():
    found = suite(base={**suite().base, "model": "nobody/has-this"}, learning_rates=[1e-3], methods=METHODS)
    assert {trained_numbers(cell) for cell in cells_of(found)} == {None, 0}
