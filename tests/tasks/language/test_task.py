"""From a config's data to tables: splits, notes and errors, the same every time."""

import json

import datasets
import pytest

from randlora.errors import ConfigError, DataError
from randlora.tasks.language.config import SftData
from randlora.tasks.language.sft import Sft


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


def task_of(tokenizer, train, seed=0, **data):
    task = Sft(SftData(train=train, **data), seed=seed)
    task.tokenizer = tokenizer
    return task


ALPACA = [{"instruction": f"Add {n} and 1.", "input": "", "output": str(n + 1)} for n in range(10)]


def test_instructions_are_messages_where_there_is_a_chat_template(chats, write, learned):
    path = write("a.jsonl", ALPACA)
    plain, chat = chats.make(), chats.make("chatml")
    first = task_of(plain, path).dataset("train")[0]
    assert plain.decode(first["input_ids"]).startswith("Below is an instruction")
    assert learned(plain, first["input_ids"], first["labels"]) == ["1<eos>"]
    row = task_of(chat, path).dataset("train")[0]
    assert chat.decode(row["input_ids"]).startswith("<|open|>user\nAdd 0 and 1.<|close|>")
    assert task_of(chat, path, wording="alpaca").dataset("train")[0] == first


def test_the_same_seed_draws_the_same(chats, write, caplog):
    path = write("a.jsonl", ALPACA)
    train = [{"source": path, "weight": 0.5}]
    one, two, other = (task_of(chats.make(), train, seed=s, validation=0.2) for s in (1, 1, 2))
    assert list(one.dataset("train")) == list(two.dataset("train"))
    assert list(one.dataset("validation")) == list(two.dataset("validation"))
    assert list(one.dataset("validation")) != list(other.dataset("validation"))
    assert (len(one.dataset("train")), len(one.dataset("validation"))) == (4, 2)
    assert caplog.text == ""


def test_validation_of_its_own_and_its_leaks(chats, write, caplog):
    task = task_of(chats.make(), write("a.jsonl", ALPACA), validation=write("b.jsonl", ALPACA[3:5]))
    assert len(task.dataset("validation")) == 2
    assert "2 of 2 validation examples are in the training data too" in caplog.text


def test_what_is_left_out_is_noted(chats, write, caplog):
    rows = [{"prompt": "one two three four five six seven", "completion": "x"}, {"prompt": "a", "completion": "b"}]
    task = task_of(chats.make(), write("a.jsonl", rows), max_length=4, drop_empty=True)
    assert task.encoded("train").dropped == 1
    assert "1 train examples are left out: cutting left nothing to train on" in caplog.text
    with pytest.raises(DataError, match=r"data\.train: expected an example or more"):
        task_of(chats.make(), write("b.jsonl", rows[:1]), max_length=4, drop_empty=True).dataset("train")


def test_errors_name_the_line(chats, write):
    path = write("a.jsonl", [*ALPACA, {"instruction": "x", "output": " "}])
    with pytest.raises(DataError, match=r"a\.jsonl: line 11, column 'output': expected a text, got an empty one"):
        task_of(chats.make(), path).dataset("train")
    with pytest.raises(ConfigError, match=r"data\.validation"):
        task_of(chats.make(), write("b.jsonl", ALPACA), validation=10).dataset("train")


def test_inputs_are_learned_on_request(chats, write):
    row = task_of(chats.make(), write("a.jsonl", ALPACA), train_on_inputs=True).dataset("train")[0]
    assert row["labels"][1:] == row["input_ids"][1:]


def test_preferences_and_others_do_not_validate_each_other(chats, write):
    pairs = write("p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    task = task_of(chats.make(), write("a.jsonl", ALPACA), validation=pairs)
    with pytest.raises(DataError, match=r"data\.validation: expected another form of data, got preference"):
        task.dataset("validation")


@pytest.mark.parametrize(
    ("train", "asked"),
    [
        ("own/set", ("own/set", "train")),
        ("own/set:half", ("own/set", "half")),
        ([{"source": "own/set", "split": "half"}], ("own/set", "half")),
    ],
)
def test_splits_of_the_hub(chats, monkeypatch, train, asked):
    found = []

    def load(name, subset, split, revision):
        found.append((name, split))
        return datasets.Dataset.from_dict({"text": ["a b"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(task_of(chats.make(), train).dataset("train")) == 1
    assert found == [asked]


def test_what_is_scored_is_in_the_order_of_its_lengths_and_what_is_trained_on_is_not(chats, write):
    lengths = [5, 1, 9, 3]
    rows = [{"instruction": "Say", "input": "", "output": "a " * length} for length in lengths]
    task = task_of(chats.make(), write("a.jsonl", rows), test=write("b.jsonl", rows))
    trained, scored = (task.dataset(split)["input_ids"] for split in ("train", "test"))
    assert sorted(trained, key=len) == list(scored) != list(trained)
