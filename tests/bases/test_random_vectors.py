import copy
import gc
import pickle

import pytest
import torch

from randlora.bases import random_vectors as module
from randlora.bases.random_vectors import random_vectors
from randlora.bases.rng import random_words

CPU = torch.device("cpu")


def table(vectors, count, size):
    return torch.cat([slab.double() for _, slab in vectors.slabs(count, size, CPU)])


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_entries_are_a_function_of_seed_stream_and_place(limit, monkeypatch):
    gc.collect()
    monkeypatch.setattr(module, "_KEPT_ENTRIES", limit)
    monkeypatch.setattr(module, "_ENTRIES_PER_SLAB", 20)
    vectors = random_vectors(11, 7)
    found = table(vectors, 5, 9)
    for i in range(5):
        words = random_words(11, 7, range(i, i + 1), 3)[0].tolist()
        wanted = [(2 * (words[j // 4] >> 8 * (j % 4) & 255) - 255) / 256 for j in range(9)]
        assert found[i].tolist() == wanted
    # Larger tables continue smaller ones, whether kept or drawn again.
    assert torch.equal(table(vectors, 8, 30)[:5, :9], found)
    assert torch.equal(table(vectors, 3, 4), found[:3, :4])
    assert bool(vectors._drawn) == (limit > 0)
    assert [rows.stop - rows.start for rows, _ in vectors.slabs(5, 9, CPU)] == [2, 2, 1]


def test_entries_are_centred_with_the_variance_of_a_uniform():
    entries = table(random_vectors(1, 7), 50, 4000)
    assert abs(entries.mean()) < 5 / (3 * 200_000) ** 0.5
    assert entries.var() == pytest.approx(1 / 3, rel=0.01)
    assert entries.abs().max() < 1


def test_one_object_for_the_same_seed():
    vectors = random_vectors(5, 7)
    assert random_vectors(5, 7) is vectors
    assert copy.deepcopy(vectors) is vectors
    assert pickle.loads(pickle.dumps(vectors)) is vectors  # noqa: S301 - our own bytes
    assert not torch.equal(table(vectors, 2, 8), table(random_vectors(5, 8), 2, 8))


def test_a_first_use_in_inference_mode_leaves_them_usable_for_training():
    gc.collect()
    vectors = random_vectors(123, 7)
    with torch.inference_mode():
        table(vectors, 2, 8)
    assert not vectors._drawn[CPU].is_inference()
