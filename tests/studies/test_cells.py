import dataclasses
import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import ConfigError, RandLoraError
from randlora.studies.cells import cells_of, rows_of, run_key
from randlora.training import MethodConfig, OptimizationConfig, TextData, TrainConfig
from randlora.training.config import resolve
from randlora.training.config.schema import config_of
from study_stand_in import suite


def test_every_place_of_the_grid_is_a_cell_once():
    budgets = [{"as_lora": 4}, {"as_lora": 16}]
    cells = cells_of(suite(budgets=budgets, shots={"few": {"data.shots": 4, "optimization.epochs": 10}, "all": {}}))
    rows = ["lora as_lora=4", "lora as_lora=16", "randlora as_lora=4", "randlora as_lora=16", "full"]
    places = [(cell.column, cell.row) for cell in cells]
    assert places == [(f"{t} {s}", row) for t in ("one", "two") for s in ("few", "all") for row in rows]
    first, last = cells[0].config, cells[-1].config
    assert (first.data.shots, first.optimization.epochs, first.data.label_column) == (4, 10, "label")
    assert (last.data.shots, last.optimization.epochs, last.data.label_column) == (None, 2, "intent")
    assert len({run_key(cell.config) for cell in cells}) == len(cells)


def test_a_budget_is_the_methods_r():
    methods = {
        "lora": {"name": "lora"},
        "randlora": {"name": "randlora"},
        "own": {"name": "randlora", "budgets": [7]},
        "as written": {"name": "randlora", "r": 9},
        "once": {"name": "kradapter", "budgets": []},
        "head": {"name": "head"},
    }
    found = suite(tasks={"one": {}}, methods=methods, budgets=[{"as_lora": 16}])
    assert [(cell.row, cell.config.method.r) for cell in cells_of(found)] == [
        ("lora as_lora=16", 16),
        ("randlora as_lora=16", {"as_lora": 16}),
        ("own r=7", 7),
        ("as written", 9),
        ("once", None),
        ("head", None),
    ]
    assert rows_of(found) == [cell.row for cell in cells_of(found)]


def test_targets_of_the_base_are_for_adapters_that_have_none_of_their_own():
    methods = {
        "lora": {"name": "lora"},
        "own": {"name": "lora", "target_modules": ["key"]},
        "full": {"name": "full"},
    }
    base = {**suite().base, "method": {"target_modules": ["query"]}}
    cells = cells_of(suite(base=base, tasks={"one": {}, "two": {"method.target_modules": "value"}}, methods=methods))
    targets = {(cell.task, cell.method): cell.config.method.target_modules for cell in cells}
    assert targets == {
        ("one", "lora"): ["query"],
        ("one", "own"): ["key"],
        ("one", "full"): None,
        ("two", "lora"): "value",
        ("two", "own"): ["key"],
        ("two", "full"): None,
    }


CONFIGS = st.builds(
    TrainConfig,
    model=st.sampled_from(["m", "n"]),
    seed=st.integers(0, 3),
    method=st.builds(
        MethodConfig, name=st.sampled_from(["lora", "randlora"]), r=st.sampled_from([4, 8, {"as_lora": 4}, None])
    ),
    data=st.builds(TextData, train=st.just("a.csv"), shots=st.sampled_from([None, 1, 2])),
    optimization=st.builds(
        OptimizationConfig, learning_rate=st.sampled_from([1e-3, 3e-3, None]), epochs=st.sampled_from([1.0, 2.0])
    ),
)


def shuffled(values, order):
    """The same nested mappings with their keys in another order, and whole numbers for numbers where they are whole."""
    if not isinstance(values, dict):
        return int(values) if isinstance(values, float) and values.is_integer() else values
    keys = list(values)
    order.shuffle(keys)
    return {key: shuffled(values[key], order) for key in keys}


@given(CONFIGS, st.randoms(use_true_random=False), st.text(max_size=5))
def test_a_runs_key_follows_from_what_is_trained_alone(config, order: random.Random, output):
    again = config_of(shuffled(dataclasses.asdict(config), order))
    assert run_key(dataclasses.replace(again, output=output, fingerprint={"model": "x"})) == run_key(config)


@given(CONFIGS, CONFIGS)
def test_other_runs_have_other_keys(one, other):
    assert (run_key(one) == run_key(other)) == (resolve(one) == resolve(other))


def test_a_runs_key_is_a_digest_of_its_config():
    config = TrainConfig(model="m", method=MethodConfig(r=4), data=TextData(train="a.csv", test="b.csv"), output="x")
    content = dataclasses.asdict(resolve(config))
    content.pop("output")
    content.pop("fingerprint")
    text = json.dumps(content, sort_keys=True)
    assert run_key(config) == hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"a": {"name": "lorra"}}}, r"one, a as_lora=4: method\.name: expected .*lora"),
        ({"methods": {"a": {}}}, r"methods\.a\.name: expected the name of a method, got None"),
        (
            {"methods": {"a": {"name": "lora", "bases": "uniform"}}},
            r"a as_lora=4: method\.bases: expected nothing",
        ),
        ({"methods": {"a": {"name": "lora", "ranks": 4}}}, r"one, a as_lora=4: method\.ranks: expected a known config"),
        ({"methods": {"a": {"name": "lora", "r": 4, "budgets": [4]}}}, r"methods\.a\.budgets: expected none beside r"),
        ({"methods": {"a": {"name": "lora", "budgets": ["x"]}}}, r"methods\.a\.budgets: expected"),
        (
            {"methods": {"a": {"name": "lora", "learning_rates": [0]}}},
            r"methods\.a\.learning_rates: expected a list",
        ),
        (
            {"methods": {"a": {"name": "lora"}, "b": {"name": "full", "learning_rates": [1e-4]}}},
            r"methods\.b\.learning_rates: expected 3 rates, as many as a has, got 1",
        ),
        (
            {"budgets": [{"as_lora": 4}], "methods": {"a": {"name": "vera"}}},
            r"a as_lora=4: method\.r: expected a n",
        ),
        ({"tasks": {"one": {"data.trian": "x"}}}, r"one, lora as_lora=4: data\.trian: .*did you mean data\.train"),
        ({"tasks": {"one": {"seed": 4}}}, r"tasks\.one\.seed: expected nothing: a study sets it, got 4"),
        ({"tasks": {"one": {"optimization": {"learning_rate": 1}}}}, r"optimization\.learning_rate: expected nothing"),
        ({"tasks": {"one": {"method": {"r": 1}}}}, r"tasks\.one\.method\.r: expected nothing"),
        (
            {"tasks": {"one": {"data.train": "x", "data": {"train": "y"}}}},
            r"tasks\.one\.data\.train: expected one",
        ),
        (
            {"tasks": {"one": {"data.validation": None}}},
            r"data\.validation: expected one, to choose",
        ),
        ({"tasks": {"one": {"data.test": None}}}, r"data\.test: expected data to score the chosen runs on"),
        ({"base": {}}, r"model: expected a hub id"),
        ({"tasks": {"one": {"data": 5}}}, r"tasks\.one\.data: expected a section with keys of its own, got 5"),
        ({"budgets": [4, 8, 4]}, r"one, lora r=4: expected one cell of that name, got 2"),
        (
            {"budgets": [4], "methods": {"a": {"name": "lora"}, "a r=4": {"name": "lora", "r": 2}}},
            r"one, a r=4: expected one cell of that name, got 2",
        ),
        (
            {"tasks": {"one": {}, "one 4": {}}, "shots": {"4 b": {}, "b": {}}},
            r"one 4 b, lora as_lora=4: expected one cell of that name, got 2",
        ),
    ],
)
def test_a_cell_that_is_no_run_is_refused_by_its_name(changes, message):
    with pytest.raises(RandLoraError, match=message):
        cells_of(suite(**changes))


def test_one_rate_needs_no_validation_split():
    base = {"model": "m", "data": {"train": "a.csv", "test": "b.csv"}}
    methods = {"lora": {"name": "lora"}}
    (cell,) = cells_of(suite(base=base, tasks={"one": {}}, methods=methods, learning_rates=[1e-3], budgets=[4]))
    assert cell.rates == (1e-3,)
    with pytest.raises(ConfigError, match="validation"):
        cells_of(suite(base=base, tasks={"one": {}}, methods=methods, budgets=[4]))


def test_a_seed_or_a_rate_that_is_there_twice_is_refused():
    with pytest.raises(ConfigError, match=r"^seeds: expected different values, got 1, 2 times"):
        cells_of(suite(seeds=[0, 1, 1]))
    with pytest.raises(ConfigError, match=r"^learning_rates: expected different values, got 0\.001, 2 times"):
        cells_of(suite(learning_rates=[1e-3, 0.001, 1e-2]))
    methods = {"lora": {"name": "lora", "learning_rates": [1, 1.0, 2]}}
    with pytest.raises(ConfigError, match=r"^methods\.lora\.learning_rates: expected .* got 1\.0, 2 times"):
        cells_of(suite(methods=methods))
