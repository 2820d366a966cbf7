import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randlora.bases.rng import philox, random_words

# Random123's known-answer file, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def _words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    result = philox(tuple(torch.tensor([word]) for word in _words(counter)), _words(key))
    assert tuple(int(word) for word in result) == _words(answer)


def test_philox_works_on_each_counter_alone():
    counters = torch.randint(0, 2**32, (4, 3, 5), dtype=torch.int64)
    together = torch.stack(philox(tuple(counters), (7, 8)))
    alone = torch.stack(philox(tuple(counters[:, 2:, 4:]), (7, 8)))
    assert torch.equal(together[:, 2:, 4:], alone)


@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 8),
    rows=st.tuples(st.integers(0, 40), st.integers(1, 12)),
    columns=st.integers(1, 40),
    more=st.integers(0, 13),
)
def test_a_word_depends_on_its_place_alone(seed, stream, rows, columns, more):
    start, count = rows
    part = random_words(seed, stream, range(start, start + count), columns)
    whole = random_words(seed, stream, range(start + count + more), columns + more)
    assert part.shape == (count, columns)
    assert torch.equal(part, whole[start : start + count, :columns])
    assert int(part.min()) >= 0
    assert int(part.max()) < 2**32


def test_seed_and_stream_select_the_words():
    draws = [
        random_words(seed, stream, range(4), 8)
        # Seeds that differ in the low word, in the high word, and by the sign bit of an int64.
        for seed in (0, 1, 2**32, 2**63)
        for stream in (0, 1)
    ]
    assert len({draw.numpy().tobytes() for draw in draws}) == len(draws)


def test_every_bit_is_fair_and_neighbours_are_independent():
    words = random_words(0, 0, range(256), 256).numpy().ravel()
    bits = (words[:, None] >> np.arange(32)) & 1
    # 65,536 fair bits have a mean within 5 standard deviations, 5 · 0.5 / 256, of one half.
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 256
    uniform = (words + 0.5) / 2**32 - 0.5
    for lag in (1, 2, 4, 256):
        correlation = (uniform[:-lag] * uniform[lag:]).mean() * 12
        assert abs(correlation) < 5 / 256
