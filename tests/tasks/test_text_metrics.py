"""Metrics of text tasks and the loss of numbers, against their definitions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randlora.tasks.classification.metrics import score_function
from randlora.tasks.classification.text_options import regression_loss


def literal_f1(predicted, labels, positive):
    hits = sum(p == label == positive for p, label in zip(predicted, labels, strict=True))
    return 2 * hits / max(1, list(predicted).count(positive) + list(labels).count(positive))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_metrics_of_classes_are_their_definitions(pairs):
    predicted, labels = zip(*pairs, strict=True)
    found = score_function(["accuracy", "f1", "matthews_correlation"])(
        SimpleNamespace(predictions=np.eye(2)[list(predicted)], label_ids=np.array(labels))
    )
    both = [[sum(pair == (p, label) for pair in pairs) for label in (0, 1)] for p in (0, 1)]
    tn, fn, fp, tp = both[0][0], both[0][1], both[1][0], both[1][1]
    root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert found["accuracy"] == pytest.approx(100 * (tp + tn) / len(pairs))
    assert found["f1"] == pytest.approx(100 * literal_f1(predicted, labels, 1))
    assert found["matthews_correlation"] == pytest.approx(100 * (tp * tn - fp * fn) / root if root else 0.0)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20))
def test_correlations_are_their_definitions_and_zero_where_there_is_none(pairs):
    predicted, labels = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    found = score_function(["pearson", "spearman"])(SimpleNamespace(predictions=predicted[:, None], label_ids=labels))
    ranks = [np.array([(side < v).sum() + ((side == v).sum() + 1) / 2 for v in side]) for side in (predicted, labels)]
    for name, sides in {"pearson": (predicted, labels), "spearman": ranks}.items():
        x, y = (side - side.mean() for side in sides)
        size = np.sqrt((x**2).sum() * (y**2).sum())
        assert found[name] == pytest.approx(100 * (x * y).sum() / size if size > 1e-9 else 0.0, abs=1e-6)


def test_f1_of_more_than_two_classes_is_the_mean_over_them():
    predicted, labels = [0, 1, 2, 2, 1], [0, 1, 1, 2, 2]
    found = score_function(["f1"])(SimpleNamespace(predictions=np.eye(3)[predicted], label_ids=np.array(labels)))
    assert found["f1"] == pytest.approx(100 * np.mean([literal_f1(predicted, labels, kind) for kind in range(3)]))


def test_f1_of_three_classes_is_that_where_a_split_has_two_of_them():
    predicted, labels = [0, 1, 1, 0], [0, 1, 0, 0]
    found = score_function(["f1"])(SimpleNamespace(predictions=np.eye(3)[predicted], label_ids=np.array(labels)))
    assert found["f1"] == pytest.approx(100 * np.mean([literal_f1(predicted, labels, kind) for kind in range(2)]))


def test_the_loss_of_numbers_is_the_mean_over_the_whole_accumulated_batch():
    logits, labels = torch.randn(6, 1), torch.randn(6)
    whole = regression_loss({"logits": logits}, labels)
    torch.testing.assert_close(whole, (logits[:, 0] - labels).square().mean())
    parts = [regression_loss({"logits": logits[part]}, labels[part], 6) for part in (slice(4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), whole)
