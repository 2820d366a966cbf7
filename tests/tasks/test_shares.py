"""Of several processes each example is scored by one, or the same last ones by all, in as many batches everywhere."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from randlora.tasks.shares import own_rows, shares

counts = st.integers(1, 9)


@given(st.integers(0, 60), counts, counts)
def test_every_example_counts_once(examples, batch_size, processes):
    plans = [shares(examples, batch_size, processes, index) for index in range(processes)]
    counted = [0.0] * examples
    for batches in zip(*plans, strict=True):
        assert len({(len(share.rows), share.weight) for share in batches}) == 1
        for share in batches:
            assert 1 <= len(share.rows) <= max(batch_size, processes)
            for row in share.rows:
                counted[row] += share.weight
    assert all(abs(value - 1) < 1e-9 for value in counted)


@given(st.integers(1, 60), counts, counts)
def test_rows_that_were_there_before_do_not_count(examples, rows, processes):
    remainder = examples % (rows * processes)
    loader = SimpleNamespace(end_of_dataloader=True, remainder=remainder)
    own = [
        own_rows(SimpleNamespace(gradient_state=loader, num_processes=processes, process_index=index), rows)
        for index in range(processes)
    ]
    assert own == [None] * processes if remainder == 0 else sum(own) == remainder
    loader.end_of_dataloader = False
    assert own_rows(SimpleNamespace(gradient_state=loader, num_processes=processes, process_index=0), rows) is None
