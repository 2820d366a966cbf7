import pytest

from randlora.demo import run_demo
from randlora.demo.arms import Setting
from randlora.demo.pretrain import PretrainRecipe
from randlora.errors import OutputError

LABELS = ("full fine-tuning", "LoRA", "RandLoRA uniform", "RandLoRA structured")


@pytest.mark.slow
def test_a_small_demo_trains_tabulates_draws_and_goes_on_where_it_was(tmp_path):
    lines: list[str] = []
    options = {
        "recipe": PretrainRecipe(width=32, layers=1, steps=3, batch_size=8),
        "settings": [Setting("2 per class", 2, 2)],
        "cache": tmp_path / "cache",
        "print_line": lines.append,
    }
    records = run_demo(tmp_path / "demo", **options)
    assert [record.method for record in records] == ["full", "lora", "randlora", "randlora"]
    full, *adapters = (record.trainable_parameters for record in records)
    assert max(adapters) < full / 4
    assert min(adapters) > 0.6 * max(adapters)  # ranks are whole, and 1 or 2 at this width
    assert len({record.metrics["test_accuracy_before"] for record in records}) == 1
    table = (tmp_path / "demo" / "report" / "table.md").read_text(encoding="utf-8")
    assert all(label in table and any(label in line for line in lines) for label in LABELS)
    for picture in ("comparison.png", "comparison.svg"):
        assert (tmp_path / "demo" / "report" / picture).stat().st_size > 5000

    started = [record.started for record in records]
    assert [record.started for record in run_demo(tmp_path / "demo", **options)] == started


def test_a_folder_with_other_files_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        run_demo(tmp_path, cache=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
