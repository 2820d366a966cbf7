import pytest

from randlora.cli import main
from randlora.studies import peak_memory, plan
from randlora.studies.plan import plan_of
from randlora.studies.schema import in_yaml
from randlora.studies.study import Study
from randlora.studies.suite import Paper
from randlora.training import ImageTextData, MethodConfig, TextData, TrainConfig
from randlora.training.prediction import Prediction
from study_stand_in import suite

METHODS = {"lora": {"name": "lora", "r": 2}, "spectral": {"name": "spectral", "r": 2}}


def planned(bert, tmp_path, **changes):
    base = {"model": str(bert), "data": {"train": "a.csv", "test": "b.csv", "validation": 0.1}}
    return Study(suite(**{"base": base, "methods": METHODS, **changes}), tmp_path / "s")


def test_cells_whose_steps_are_alike_share_a_prediction(bert, tmp_path, monkeypatch):
    asked = []

    def predicted(config):
        asked.append(config)
        return Prediction(2**20 * len(asked), 0, f"texts of {config.data.max_length} tokens")

    monkeypatch.setattr(peak_memory, "predict_from_config", predicted)
    shots = {"few": {"data.shots": 4, "optimization.epochs": 10}, "long": {"data.max_length": 24}}
    found = plan_of(planned(bert, tmp_path, shots=shots, methods={"lora": METHODS["lora"]}))
    assert len(asked) == 2
    peak = {row["column"]: row["memory"] for row in found.rows}
    assert peak["one few"] == peak["two few"]
    assert peak["one few"] != peak["one long"]
    length = TextData().max_length
    assert found.notes == [f"peak memory is predicted for texts of {length} tokens; texts of 24 tokens"]


@pytest.fixture
def by_classes(monkeypatch):
    """Predictions of a KiB for each class; the numbers of classes that were asked for."""
    asked = []

    def predicted(config):
        asked.append(len(config.data.class_names))
        return Prediction(2**10 * asked[-1], 0, f"{asked[-1]} classes")

    monkeypatch.setattr(peak_memory, "predict_from_config", predicted)
    return asked


def of_classes(count, **data):
    names = [f"class {number}" for number in range(count)]
    return TrainConfig(
        task="image-text", method=MethodConfig(name="lora", r=2), data=ImageTextData(class_names=names, **data)
    )


def test_between_few_and_many_classes_memory_is_in_proportion(by_classes):
    configs = [of_classes(count) for count in (10, 20, 100, 400, 1000)]
    peaks = peak_memory.PeakMemory(configs)
    assert [peaks.of(config).peak_bytes for config in configs] == [2**10 * n for n in (10, 20, 100, 400, 1000)]
    assert sorted(by_classes) == [10, 100, 1000]
    assert [peaks.of(config).assumed for config in configs][1::2] == [peak_memory.BETWEEN] * 2


def test_longer_captions_are_more_and_a_frozen_text_tower_reads_none(by_classes):
    configs = [of_classes(10), of_classes(10, prompt_templates=["a photo of a {}, and some more."])]
    peaks = peak_memory.PeakMemory(configs)
    assert len([peaks.of(config) for config in configs]) == len(by_classes) == 2
    configs = [of_classes(10, encoders="vision"), of_classes(20, encoders="vision")]
    peaks = peak_memory.PeakMemory(configs)
    assert {peaks.of(config).peak_bytes for config in configs} == {2**10 * 10}


def test_what_is_not_known_is_said_with_the_reason(bert, tmp_path, capsys):
    study = planned(bert, tmp_path, tasks={"one": {}})
    (tmp_path / "suite.yaml").write_text(in_yaml(study.suite), encoding="utf-8")
    assert main(["study", "run", str(tmp_path / "suite.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("one"))
    assert "iB" in line  # of a process that has run other tests too, GiB
    spectral = next(line for line in out.splitlines() if line.startswith("one   spectral")).split()
    assert (spectral[2].replace(",", "").isdigit(), spectral[3]) == (True, "unknown")
    assert ", and more where the best rate is at an edge" in out
    assert "unknown: memory of spectral: module 'encoder.layer.0" in out.replace("bert.", "")
    assert main(["study", "run", str(tmp_path / "suite.yaml"), "--dry-run", "--base.model", "nobody/has-this"]) == 0
    out = capsys.readouterr().out
    assert "trained numbers of lora, spectral: nobody/has-this: its config cannot be had here" in out
    one_rate = ["--learning_rates", "[1e-3]", "--base.model", "nobody/has-this"]
    assert main(["study", "run", str(tmp_path / "suite.yaml"), "--dry-run", *one_rate]) == 0
    assert "at an edge" not in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("printed", "close"), [("0.00096M", 1), ("0.0009M", 1), ("0.00090M", 0)])
def test_numbers_are_compared_with_the_papers_to_its_rounding(bert, tmp_path, monkeypatch, printed, close):
    monkeypatch.setattr(peak_memory, "predict_from_config", lambda _: Prediction(None, None, "not asked"))
    monkeypatch.setattr(plan, "paper_trained", lambda _, row: printed if row == "lora" else None)
    entry = {"table": "4", "backbone": "RoBERTa-base", "setting": "full", "trained": "params"}
    found = plan_of(planned(bert, tmp_path, tasks={"one": {}}, paper=[Paper(**entry, methods={"lora": "LoRA-4"})]))
    (row,) = (row for row in found.rows if row["row"] == "lora")
    assert row["trained"] == 960  # in two blocks four times 2 · (16 + 16) and twice 2 · (16 + 32), and 2 · (16 + 16)
    assert row["ratio"] == pytest.approx(960 / (1e6 * float(printed[:-1])))
    assert found.notes[-1].startswith(f"{close} of 1 cells whose numbers the paper prints train as many within 3%")
