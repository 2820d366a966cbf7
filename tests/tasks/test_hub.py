"""Data sets of the hub: what is asked for by a name, and what of the cache is taken for it."""

import datasets
import pytest

from randlora.errors import DataError
from randlora.tasks import TASKS, TextData
from randlora.tasks.hub import at_commit, commit_of, hub_rows

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache of `datasets` with a data set at a commit, as it is left behind by a machine that had the hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    folder = tmp_path / "own___set" / "default" / "0.0.0" / OLD
    folder.mkdir(parents=True)
    table = datasets.Dataset.from_dict({"text": ["x"], "label": ["1"]})
    with datasets.arrow_writer.ArrowWriter(path=str(folder / "set-train.arrow"), features=table.features) as writer:
        writer.write({"text": "x", "label": "1"})
        writer.finalize()
    split = datasets.SplitInfo(name="train", num_examples=1, dataset_name="set")
    splits = datasets.SplitDict({"train": split}, dataset_name="set")
    datasets.DatasetInfo(
        builder_name="parquet",
        dataset_name="set",
        config_name="default",
        version="0.0.0",
        features=table.features,
        splits=splits,
    ).write_to_directory(str(folder))


@pytest.mark.usefixtures("cached")
def test_without_the_hub_the_cache_is_read_at_its_commit_alone():
    assert commit_of("own/set", None) == OLD
    assert hub_rows("own/set:train", "test", None)["text"][:] == ["x"]
    assert hub_rows(f"own/set@{OLD}:train", "test", None)["text"][:] == ["x"]
    for revision in (NEW, "main"):  # `datasets` would read the old one and say so in a warning
        with pytest.raises(DataError, match=f"^own/set: expected the revision {revision}, got {OLD}, the newest in"):
            hub_rows(f"own/set@{revision}:train", "test", None)


@pytest.mark.usefixtures("cached")
def test_what_cannot_be_had_is_one_line():
    with pytest.raises(DataError, match=r"^own/other: expected a file, or a hub data set, got ConnectionError: "):
        commit_of("own/other", None)
    with pytest.raises(DataError, match=r"^own/other:half: expected a file, or a hub data set with a split 'half'"):
        hub_rows("own/other:half", "train", None)
    with pytest.raises(DataError, match=r"^own/set@: expected a commit, a branch or a tag after the @, got nothing"):
        hub_rows("own/set@:train", "train", None)


def test_a_commit_takes_the_place_of_a_revision():
    assert at_commit("own/set", OLD) == f"own/set@{OLD}"
    assert at_commit("own/set@refs/pr/1:half", OLD) == f"own/set@{OLD}:half"


def test_without_test_data_the_test_split_is_scored_and_not_the_named_one(monkeypatch):
    asked = []

    def load_dataset(name, subset, *, split, revision):
        asked.append((name, split))
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = TASKS["text-classification"](TextData(train="own/set:train"), seed=0)
    task.examples("train"), task.examples("test")
    assert asked == [("own/set", "train"), ("own/set", "test")]
