from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.studies.cells import cells_of
from randlora.studies.progress import Outcome, progress_of
from study_stand_in import RECORD, suite

CELL = cells_of(suite(tasks={"one": {}}, budgets=[4]))[0]


def simulated(scores, order, cell=CELL):
    """Do a cell's units in any order, with these scores by rate; its progress at the end, and what was done."""
    done = {}

    def outcome_of(unit):
        return done.get(unit.name, Outcome("missing"))

    while True:
        found = progress_of(cell, outcome_of)
        missing = [unit for unit, outcome in found.units if outcome.state == "missing"]
        if not missing:
            return found, done
        unit = order(missing)
        score = scores(unit.config.optimization.learning_rate)
        if score is None:
            done[unit.name] = Outcome("diverged")
        else:
            metrics = {"validation_accuracy": score, "test_accuracy": score}
            done[unit.name] = Outcome("done", replace(RECORD, metrics=metrics, seed=unit.config.seed))


@given(st.floats(-5, 0), st.data())
def test_units_in_any_order_end_in_the_same_choice(peak, data):
    import math

    def scores(rate):
        return -abs(math.log10(rate) - peak)

    def any_of(units):
        return data.draw(st.sampled_from(units))

    (found, done), (straight, _) = simulated(scores, any_of), simulated(scores, lambda units: units[0])
    assert (found.chosen, found.scores) == (straight.chosen, straight.scores)
    assert found.chosen == max(found.scores, key=scores)
    assert len(found.scores) <= 3 + 4
    assert len(done) == len(found.scores) + len(CELL.seeds)
    tested = [unit for unit, _ in found.units if unit.scores_test]
    assert [unit.config.seed for unit in tested] == list(CELL.seeds)
    assert {unit.config.optimization.learning_rate for unit in tested} == {found.chosen}
    inside = list(found.scores)[1:-1]
    assert found.chosen in inside or len(found.scores) == 7


def test_of_rates_that_are_hardly_worse_than_the_best_the_lowest_is_taken():
    (cell, *_) = cells_of(suite(tasks={"one": {}}, budgets=[4], tolerance=0.01))
    scores = {1e-3: 0.5, 3e-3: 0.897, 1e-2: 0.9}
    found, _ = simulated(lambda rate: scores.get(rate, 0.8), lambda units: units[0], cell)
    assert found.chosen == 3e-3
    assert {unit.config.optimization.learning_rate for unit, _ in found.units if unit.scores_test} == {3e-3}


def test_a_rate_is_chosen_by_the_mean_of_as_many_seeds_as_are_asked_for():
    by_seed = {1e-3: (0.6, 0.6, 0.0), 3e-3: (0.7, 0.4, 0.9), 1e-2: (0.8, None, 0.9)}

    def units_done(count):
        (cell, *_) = cells_of(suite(tasks={"one": {}}, budgets=[4], seeds=[5, 6, 7], rate_seeds=count))

        def outcome_of(unit):
            score = by_seed.get(unit.config.optimization.learning_rate, (0.1, 0.1, 0.1))[unit.config.seed - 5]
            if score is None:
                return Outcome("diverged")
            return Outcome("done", replace(RECORD, metrics={"validation_accuracy": score}, seed=unit.config.seed))

        return progress_of(cell, outcome_of)

    assert units_done(1).chosen == 1e-2
    found = units_done(2)
    assert found.chosen == 1e-3
    assert found.scores == {3.3e-4: 0.1, 1e-3: 0.6, 3e-3: pytest.approx(0.55), 1e-2: None}
    assert len({unit.key for unit, _ in found.units}) == 4 * 2 + 1  # one seed more at the best rate
    assert [unit.config.seed for unit, _ in found.units if unit.scores_test] == [5, 6, 7]


def test_a_rate_that_diverged_is_passed_over_and_all_of_them_end_the_cell():
    found, _ = simulated(lambda rate: None if rate > 5e-3 else rate, lambda units: units[0])
    assert found.scores[1e-2] is None
    assert found.chosen == 3e-3
    found, done = simulated(lambda _: None, lambda units: units[0])
    assert (found.chosen, found.to_come, len(done)) == (None, 0, 3)


def test_a_failed_rate_keeps_the_others_from_being_chosen():
    def outcome_of(unit):
        failed = unit.config.optimization.learning_rate == 1e-3
        record = replace(RECORD, metrics={"validation_accuracy": 1.0})
        return Outcome("failed", error="no memory") if failed else Outcome("done", record)

    found = progress_of(CELL, outcome_of)
    assert (found.chosen, found.count("failed"), found.count("done"), found.to_come) == (None, 1, 2, 0)


@pytest.mark.parametrize("state", ["missing", "running"])
def test_what_is_to_come_is_counted_before_it_is_asked_for(state):
    found = progress_of(CELL, lambda _: Outcome(state))
    assert (found.count(state), found.to_come, found.records()) == (3, 2, [])
