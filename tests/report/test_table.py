import pytest

from randlora.report import Column, markdown_table, run_columns, table, text_table

ROWS = [
    {"label": "LoRA", "trainable_parameters": 29184, "metrics": {"test_accuracy": 91.14}, "adapter_bytes": 130381},
    {"label": "RandLoRA | r = 16", "trainable_parameters": 845185, "metrics": {"test_accuracy": None}},
]
COLUMNS = (
    Column("method", "label"),
    Column("trained", "trainable_parameters", table.count),
    Column("after (%)", "metrics.test_accuracy", table.percent),
    Column("adapter", "adapter_bytes", table.binary_bytes),
)


def test_text_table_is_aligned_and_shows_what_is_missing():
    assert text_table(ROWS, COLUMNS).splitlines() == [
        "method             trained  after (%)    adapter",
        "─────────────────  ───────  ─────────  ─────────",
        "LoRA                29,184       91.1  127.3 KiB",
        "RandLoRA | r = 16  845,185          –          –",
    ]


def test_markdown_table_escapes_bars():
    assert markdown_table(ROWS, COLUMNS).splitlines() == [
        "| method | trained | after (%) | adapter |",
        "| :-- | --: | --: | --: |",
        "| LoRA | 29,184 | 91.1 | 127.3 KiB |",
        "| RandLoRA \\| r = 16 | 845,185 | – | – |",
    ]


def test_a_table_without_rows_has_its_headings():
    assert text_table([], COLUMNS[:1]).splitlines() == ["method", "──────"]


def test_run_columns_find_their_values_in_a_record():
    record = {
        "trainable_parameters": 1234,
        "before": 10.0,
        "after": 99.95,
        "step_seconds_median": 0.0421,
        "peak_memory_bytes": 3 * 2**30,
        "adapter_bytes": 100,
    }
    assert [column.cell(record) for column in run_columns("%")] == [
        "1,234",
        "10.0",
        "100.0",
        "42 ms",
        "3.0 GiB",
        "100 B",
    ]


@pytest.mark.parametrize(("value", "text"), [(1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB")])
def test_bytes_in_the_unit_that_fits(value, text):
    assert table.binary_bytes(value) == text
