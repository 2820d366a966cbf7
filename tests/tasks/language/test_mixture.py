"""Weights are kept to the example, draws repeat from their seed, and nothing held out is learned unnoticed."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randlora.errors import ConfigError, DataError
from randlora.tasks.language import Source, count_leaks, mix, read_sources
from randlora.tasks.language.mixture import draw, hold_out

COUNTS = st.integers(1, 60)


@given(count=COUNTS, weight=st.floats(0.01, 4), seed=st.text(max_size=3))
def test_a_weight_is_a_number_of_examples(count, weight, seed):
    rows = draw(count, weight, seed=seed)
    assert len(rows) == round(weight * count)
    assert rows == draw(count, weight, seed=seed)
    times = Counter(rows)
    whole = round(weight * count) // count
    assert all(whole <= times[row] <= whole + 1 for row in range(count))


def test_seeds_draw_differently():
    assert len({tuple(draw(40, 0.5, seed=str(seed))) for seed in range(5)}) == 5


@given(counts=st.lists(COUNTS, min_size=1, max_size=4), data=st.data())
def test_rows_are_held_out_from_each_source(counts, data):
    size = data.draw(st.integers(1, max(1, sum(counts) - 1)) | st.floats(0.05, 0.95))
    wanted = size if size >= 1 else sum(round(size * count) for count in counts)
    if not 0 < wanted < sum(counts):
        with pytest.raises(ConfigError, match="validation: expected a share"):
            hold_out(counts, size, seed="0")
        return
    held = hold_out(counts, size, seed="0")
    assert sum(map(len, held)) == wanted
    for count, rows in zip(counts, held, strict=True):
        assert rows == sorted(set(rows))
        assert all(0 <= row < count for row in rows)
    assert held == hold_out(counts, size, seed="0")


@pytest.mark.parametrize("size", [0, -1, 1.5, 10, 11, float("nan"), float("inf")])
def test_validation_must_part_the_rows(size):
    with pytest.raises(ConfigError, match="validation: expected a share between 0 and 1"):
        hold_out([4, 6], size, seed="0")


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.fixture
def sources(tmp_path):
    one = write(tmp_path / "one.jsonl", [{"text": f"one {n}"} for n in range(10)])
    two = write(tmp_path / "two.jsonl", [{"prompt": f"two {n}", "completion": "x"} for n in range(6)])
    return one, two


@given(weights=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)), seed=st.integers(0, 3))
def test_sources_of_different_forms_are_mixed(tmp_path_factory, weights, seed):
    folder = tmp_path_factory.mktemp("mixture")
    one = write(folder / "one.jsonl", [{"text": f"one {n}"} for n in range(10)])
    two = write(folder / "two.jsonl", [{"prompt": f"two {n}", "completion": "x"} for n in range(6)])
    pool, held = mix([Source(one, weights[0]), Source(two, weights[1])], validation=4, seed=seed)
    samples = [sample for _, sample in pool]
    kept = [len(part.rows) for part in held.parts]
    assert sum(kept) == len(list(held)) == 4
    names = Counter(type(sample).__name__ for sample in samples)
    assert names["Text"] == round(weights[0] * (10 - kept[0]))
    assert names["Completion"] == round(weights[1] * (6 - kept[1]))
    assert len(pool) == len(samples)
    assert count_leaks(pool, held) == 0


def test_a_copy_of_what_is_held_out_is_counted(tmp_path):
    rows = [{"text": "the same"}] * 8
    pool, held = mix([Source(write(tmp_path / "data.jsonl", rows))], validation=3)
    assert count_leaks(pool, held) == 3


def test_places_stay_those_of_the_file(sources):
    pool, held = mix([Source(sources[0], 0.5)], validation=0.2, seed=1)
    for where, sample in [*pool, *held]:
        line = int(where.split("line ")[1])
        assert sample.text == f"one {line - 1}"


def test_a_weight_that_rounds_to_nothing_is_an_error(sources):
    with pytest.raises(DataError, match=r"one\.jsonl: expected a weight .* got 0.01 of 10 rows"):
        mix([Source(sources[0], 0.01)])


def test_preferences_do_not_mix(sources, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match=r"pairs\.jsonl: expected examples to imitate"):
        mix([Source(sources[0]), Source(pairs)])


def test_sources_are_read_from_a_config():
    assert read_sources("a.jsonl") == [Source("a.jsonl")]
    assert read_sources({"source": "a", "weight": 2}) == [Source("a", 2)]
    assert read_sources(["a", {"source": "b", "split": "test", "form": "text"}]) == [
        Source("a"),
        Source("b", split="test", form="text"),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "data.train: expected a source, or a list of them, got an empty list"),
        (3, "data.train: expected a file"),
        (["a", {"weight": 1}], r"data.train\[1\]: expected a file"),
        (
            [{"source": "a", "wait": 1}],
            r"data.train\[0\]: expected keys among source, weight, split, form, subset, got wait",
        ),
        ([{"source": "a", "weight": "much"}], r"data.train\[0\].weight: expected a number above 0, got 'much'"),
        ([{"source": "a", "weight": 0}], "weight of a: expected a number above 0"),
        ([{"source": "a", "weight": float("nan")}], "weight of a"),
        ([{"source": "a", "weight": 1e12}], "weight of a: expected a number above 0, at most 10,000"),
        ([{"source": "a", "form": "chat"}], "form of a: expected one of messages"),
    ],
)
def test_wrong_sources_are_named(value, message):
    with pytest.raises(ConfigError, match=message):
        read_sources(value)


def test_columns_that_hold_a_part_of_what_was_said_are_not_passed_over_without_a_word(tmp_path, caplog):
    row = {"instruction": "i", "output": "o", "id": 1}
    plain = write(tmp_path / "plain.jsonl", [row])
    more = write(tmp_path / "more.jsonl", [row, {**row, "system": "be kind", "history": [["a", "b"]]}])
    mix([Source(plain), Source(more)])
    (line,) = caplog.messages
    assert line.startswith(f"{more}: the columns 'system', 'history' are passed over")
