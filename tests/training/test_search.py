import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from randlora.errors import ConfigError
from randlora.tasks import Goal
from randlora.training import search
from randlora.training import search as search_function
from randlora.training.rates import best_rate, rates_beyond

pytestmark = pytest.mark.slow


@pytest.fixture
def config(text_config):
    text_config.data.validation = 0.25
    text_config.optimization.max_steps = 1
    return text_config


def test_the_best_rate_on_validation_is_scored_on_test_and_no_other(config):
    found = search(config, [1e-3, 3e-3, 1e-2], [0, 1])
    folder = Path(config.output)
    assert set(found.validation) >= {1e-3, 3e-3, 1e-2}
    assert found.validation[found.learning_rate] == max(found.validation.values())
    tested = {
        path.parent.name: "test_accuracy" in json.loads(path.read_text())["metrics"]
        for path in folder.glob("*/record.json")
    }
    best = {f"lr{found.learning_rate:g}-seed{seed}" for seed in (0, 1)}
    assert {name for name, scored in tested.items() if scored} == best
    assert [record.seed for record in found.records] == [0, 1]
    assert json.loads((folder / "search.json").read_text())["learning_rate"] == found.learning_rate
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/adapter/*")}
    assert search(config, [1e-3, 3e-3, 1e-2], [0, 1]) == found
    assert written == {path: path.stat().st_mtime_ns for path in folder.glob("*/adapter/*")}


def test_a_rate_that_diverges_is_passed_over(config):
    config.optimization.max_steps = 4
    found = search(config, [1e-3, 1e30], [0])
    assert found.validation[1e30] is None
    assert found.learning_rate != 1e30


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ({1e-3: 1, 3e-3: 2, 1e-2: 1}, []),
        ({1e-3: 1, 3e-3: 2, 1e-2: 3}, [3.3e-2]),
        ({1e-3: 3, 3e-3: 2, 1e-2: 1}, [3.3e-4]),
        ({1e-3: 1, 3e-3: 2, 1e-2: None}, []),
    ],
)
def test_the_grid_is_widened_while_the_best_is_at_an_edge(config, scores, wanted):
    assert rates_beyond(scores, Goal("accuracy"), 3) == wanted
    assert best_rate(scores, Goal("loss", higher=False)) == min((v, k) for k, v in scores.items() if v)[1]


@pytest.mark.parametrize(
    ("scores", "higher", "tolerance", "wanted"),
    [
        ({1e-3: 1.31, 2e-3: 1.282, 4e-3: 1.278, 8e-3: 1.28}, False, 0.01, 2e-3),
        ({1e-3: 1.31, 2e-3: 1.282, 4e-3: 1.278, 8e-3: 1.28}, False, 0.0, 4e-3),
        ({1e-3: 89.0, 2e-3: 89.9, 4e-3: 90.0, 8e-3: None}, True, 0.01, 2e-3),
        ({1e-3: None, 2e-3: 89.9, 4e-3: 90.0}, True, 0.9, 2e-3),
        ({1e-3: -0.1, 2e-3: -0.1, 4e-3: -0.3}, True, 0.0, 1e-3),
        ({1e-3: -0.101, 2e-3: -0.1, 4e-3: -0.3}, True, 0.02, 1e-3),
        ({1e-3: 0.0, 2e-3: 0.0}, False, 0.5, 1e-3),
    ],
)
def test_the_lowest_rate_that_is_hardly_worse_is_taken(scores, higher, tolerance, wanted):
    assert best_rate(scores, Goal("metric", higher=higher), tolerance) == wanted


def test_a_search_scores_the_rate_that_it_takes(config, monkeypatch):
    import importlib

    module = importlib.import_module("randlora.training.search")
    loss = {1e-3: 0.8, 2e-3: 0.899, 4e-3: 0.9, 8e-3: 0.7}

    class Run:
        def __init__(self, config):
            self.after, self.history = loss[config.optimization.learning_rate], []

    monkeypatch.setattr(module, "_attempt", Run)
    monkeypatch.setattr(module, "train", lambda one: {"rate": one.optimization.learning_rate})
    Path(config.output).mkdir(parents=True)
    found = search(config, list(loss), [0], tolerance=0.01)
    assert (found.learning_rate, found.records) == (2e-3, [{"rate": 2e-3}])
    for wrong in (1.0, -0.1, math.nan, "0.01"):
        with pytest.raises(ConfigError, match=r"^--tolerance: expected a number from 0 to below 1"):
            search(config, list(loss), [0], tolerance=wrong)


def test_a_search_by_several_seeds_takes_the_rate_that_is_best_on_average(config, monkeypatch):
    import importlib

    module = importlib.import_module("randlora.training.search")
    scores = {1e-3: (0.5, 0.5), 2e-3: (0.6, 0.55), 4e-3: (0.9, 0.1), 8e-3: (0.8, None)}

    class Run:
        def __init__(self, config):
            self.after, self.history = scores[config.optimization.learning_rate][config.seed], [config.seed]

    def attempt(one):
        run = Run(one)
        return None if run.after is None else run

    monkeypatch.setattr(module, "_attempt", attempt)
    monkeypatch.setattr(module, "train", lambda one: {"seed": one.seed})
    Path(config.output).mkdir(parents=True)
    assert search(config, list(scores), [0, 1]).learning_rate == 4e-3
    found = search(config, list(scores), [0, 1], rate_seeds=2)
    assert found.learning_rate == 2e-3
    assert found.validation == {1e-3: 0.5, 2e-3: pytest.approx(0.575), 4e-3: 0.5, 8e-3: None}
    assert list(found.curves.values()) == 4 * [[0]]
    with pytest.raises(ConfigError, match=r"^--rate-seeds: expected at most the number of seeds, 2, got 3"):
        search(config, list(scores), [0, 1], rate_seeds=3)
    with pytest.raises(ConfigError, match=r"^--rate-seeds: expected a whole number above 0"):
        search(config, list(scores), [0, 1], rate_seeds=0)


def test_rates_that_two_digits_do_not_tell_apart_are_not_tried_without_end():
    assert rates_beyond({1e-3: 0.5, 1.01e-3: 0.6}, Goal("accuracy"), 2) == []
    assert rates_beyond({1e-3: 0.5, 1e-2: 0.5}, Goal("accuracy"), 2) == []
    assert rates_beyond({1e-3: 0.5, 3e-3: 0.5, 1e-2: None}, Goal("accuracy"), 3) == []  # one that diverged is no way up
    assert rates_beyond({1e-3: 0.5, 3e-3: None, 1e-2: None}, Goal("accuracy"), 3) == [3.3e-4]
    assert rates_beyond({1e-3: 0.6, 1.001e-3: 0.5}, Goal("accuracy"), 2) == []
    assert rates_beyond({1e-300: 0.6, 1e-3: 0.5}, Goal("accuracy"), 2) == []
    assert rates_beyond({1e-3: 0.5, 1e300: 0.6}, Goal("accuracy"), 2) == []


def test_nothing_to_try_and_nothing_to_choose_on(config):
    with pytest.raises(ConfigError, match="at least two learning rates"):
        search_function(config, [1e-3], [0])
    with pytest.raises(ConfigError, match=r"data\.validation: expected one, for the search"):
        search(replace(config, data=replace(config.data, validation=None)), [1e-3, 1e-2], [0])


@pytest.mark.parametrize(
    ("rates", "seeds", "message"),
    [
        ([1e-3, 1e-3], [0], r"^--rates: expected different values, got 0\.001, 2 times"),
        ([1e-3, 1e-2], [0, 0], r"^--seeds: expected different values, got 0, 2 times"),
        ([1e-3, math.inf], [0], r"^optimization\.learning_rate: expected a number above 0 or null, got inf"),
        ([1e-3, 1e-2], [0, -1], r"^seed: expected a whole number"),
    ],
)
def test_rates_and_seeds_are_checked_before_the_first_is_trained(config, rates, seeds, message):
    with pytest.raises(ConfigError, match=message):
        search(config, rates, seeds)
    assert not Path(config.output).exists()


def test_a_search_goes_four_rates_beyond_its_grid_at_most(config, monkeypatch):
    import importlib

    module = importlib.import_module("randlora.training.search")

    class Run:
        """As good as its learning rate is high."""

        def __init__(self, config):
            self.after, self.history = config.optimization.learning_rate, []

    tried = []
    monkeypatch.setattr(module, "_attempt", lambda one: tried.append(one.optimization.learning_rate) or Run(one))
    monkeypatch.setattr(module, "train", lambda one: {"seed": one.seed})
    Path(config.output).mkdir(parents=True)
    found = search(config, [1e-3, 2e-3], [5, 6])
    assert tried == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]
    assert (found.learning_rate, found.records) == (3.2e-2, [{"seed": 5}, {"seed": 6}])
