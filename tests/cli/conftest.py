"""Language runs that must be refused: rows and a config, and a model to be spoilt."""

import json
import shutil

import pytest
import yaml

from refusals import CHAT


@pytest.fixture
def ask(llama, tmp_path, monkeypatch):
    """Write rows and a config, with more keys by their dotted names; the words that train it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    work = tmp_path / "work"
    work.mkdir()

    def words(rows=(CHAT,) * 4, task="sft", name="train.jsonl", **keys):
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(content)
        optimization = {"epochs": 1, "batch_size": 4, "precision": "fp32", "device": "cpu"}
        data = {"train": str(tmp_path / name), "max_length": 64, "general": False}
        config = {"task": task, "model": str(llama), "method": {"r": 4}, "data": data, "optimization": optimization}
        for key, value in keys.items():
            section, _, last = key.rpartition("__")
            (config[section] if section else config)[last] = value
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        return "train", tmp_path / "config.yaml", "--output", work / "run"

    yield words
    assert [path.name for path in work.iterdir()] == []


@pytest.fixture
def model(llama, tmp_path):
    """A copy of the tiny model, to be spoilt."""
    return shutil.copytree(llama, tmp_path / "model")
