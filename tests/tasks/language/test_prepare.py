"""One call from files to tables: splits, notes and errors, the same every time."""

import json

import pytest

from randlora.errors import ConfigError, DataError
from randlora.tasks.language import Loss, prepare


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


ALPACA = [{"instruction": f"Add {n} and 1.", "input": "", "output": str(n + 1)} for n in range(10)]


def test_instructions_are_messages_where_there_is_a_chat_template(chats, write, learned):
    path = write("a.jsonl", ALPACA)
    plain, chat = chats.make(), chats.make("chatml")
    first = prepare(plain, path).train.rows[0]
    assert plain.decode(first["input_ids"]).startswith("Below is an instruction")
    assert learned(plain, first["input_ids"], first["labels"]) == ["1<eos>"]
    row = prepare(chat, path).train.rows[0]
    assert chat.decode(row["input_ids"]).startswith("<|open|>user\nAdd 0 and 1.<|close|>")
    assert prepare(chat, path, wording="alpaca").train.rows[0] == first


def test_the_same_seed_prepares_the_same(chats, write):
    path = write("a.jsonl", ALPACA)
    one, two, other = (
        prepare(chats.make(), {"source": path, "weight": 0.5}, validation=0.2, seed=s) for s in (1, 1, 2)
    )
    assert list(one.train.rows) == list(two.train.rows)
    assert list(one.validation.rows) == list(two.validation.rows)
    assert list(one.validation.rows) != list(other.validation.rows)
    assert (one.statistics.examples, len(one.validation.rows)) == (4, 2)
    assert one.notes == []


def test_validation_of_its_own_and_its_leaks(chats, write):
    prepared = prepare(chats.make(), write("a.jsonl", ALPACA), validation=write("b.jsonl", ALPACA[3:5]))
    assert prepared.notes == ["2 of 2 examples for validation are in the training data too"]


def test_what_is_left_out_is_noted(chats, write):
    rows = [{"prompt": "one two three four five six seven", "completion": "x"}, {"prompt": "a", "completion": "b"}]
    prepared = prepare(chats.make(), write("a.jsonl", rows), max_length=4, drop_empty=True)
    assert prepared.notes == ["1 examples of training are left out: max_length = 4 leaves nothing to train on"]
    assert prepared.statistics.dropped == 1
    with pytest.raises(DataError, match="training data: expected at least one example"):
        prepare(chats.make(), write("b.jsonl", rows[:1]), max_length=4, drop_empty=True)


def test_errors_name_the_line(chats, write):
    path = write("a.jsonl", [*ALPACA, {"instruction": "x", "output": " "}])
    with pytest.raises(DataError, match=r"a\.jsonl: line 11, column 'output': expected a text, got an empty one"):
        prepare(chats.make(), path)
    with pytest.raises(ConfigError, match="validation"):
        prepare(chats.make(), write("b.jsonl", ALPACA), validation=10)


def test_inputs_are_learned_on_request(chats, write):
    row = prepare(chats.make(), write("a.jsonl", ALPACA), loss=Loss(train_on_inputs=True)).train.rows[0]
    assert row["labels"][1:] == row["input_ids"][1:]


def test_preferences_and_others_do_not_validate_each_other(chats, write):
    pairs = write("p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match=r"data\.validation: expected data of the kind"):
        prepare(chats.make(), write("a.jsonl", ALPACA), validation=pairs)
