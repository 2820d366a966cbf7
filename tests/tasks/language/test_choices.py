"""The answers to choose from: where they are found, which is right, and what is refused in one line."""

import json

import pytest

from randlora.errors import DataError
from randlora.tasks.language.choices import Choice, read_choice
from randlora.tasks.language.mixture import read_sources
from randlora.tasks.language.pool import mix
from randlora.tasks.language.questions import Asker, read_questions


def test_the_column_comes_before_the_config_and_that_before_the_prompt():
    asked = "Which?\n\nAnswer format: answer1/answer2/answer3"
    row = {"choices": ["no", "yes"]}
    assert read_choice(row, asked, "yes", "here", ["yes", "maybe"]) == Choice(("no", "yes"), 1)
    assert read_choice({}, asked, "yes", "here", ["yes", "maybe"]) == Choice(("yes", "maybe"), 0)
    found = read_choice({"choices": None}, asked, "the correct answer is answer2", "here")
    assert found == Choice(tuple(f"the correct answer is answer{n}" for n in (1, 2, 3)), 1)
    assert read_choice({"choices": '["1", "11"]'}, "", " 11 ", "here") == Choice((" 1", " 11"), 1)


def test_the_longest_choice_that_ends_the_answer_is_the_right_one():
    assert read_choice({}, "", "a black cat", "here", ["cat", "black cat"]).candidates == ("a cat", "a black cat")
    assert read_choice({}, "", "is not true", "here", ["true", "not true"]).right == 1


@pytest.mark.parametrize(
    ("row", "answer", "given", "message"),
    [
        ({}, "yes", None, r"here: expected two or more different choices.*got none"),
        ({}, "yes", ["yes"], r"two or more different"),
        ({}, "yes", ["yes", "yes "], r"two or more different"),
        ({}, "yes", ["yes", " "], r"data\.choices: expected a list of texts"),
        ({"choices": 3}, "yes", None, r"here, column 'choices': expected a list of texts, got 3"),
        ({"choices": "yes, no"}, "yes", None, r"column 'choices': expected a JSON list"),
        ({"choices": {"text": ["a"]}}, "yes", None, r"column 'choices'"),
        ({"choices": ["a", 1]}, "a", None, r"column 'choices'"),
        ({"choices": ["a", "b"]}, "c", None, r"here: expected an answer that ends with one of 'a', 'b', got 'c'"),
        ({"choices": ["rue", "b"]}, "true", None, r"ends with one of"),
    ],
)
def test_what_is_no_choice_is_refused(row, answer, given, message):
    with pytest.raises(DataError, match=message):
        read_choice(row, "asked", answer, "here", given)


def pool_of(folder, rows, wording=None, name="rows.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return mix(read_sources(str(path)), wording=wording)[0]


def test_questions_are_tokenized_as_in_training(chats, tmp_path):
    tokenizer = chats.made["chatml"]
    turns = [("user", "true or false?"), ("assistant", "false"), ("user", "sure?"), ("assistant", "true")]
    rows = [{"messages": [{"role": role, "content": said} for role, said in turns], "choices": ["true", "false"]}]
    (question,) = read_questions(pool_of(tmp_path, rows), choose=True)
    asker = Asker(tokenizer)
    messages = rows[0]["messages"]
    ids = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert asker.prompt(question) == ids
    assert asker.answered(question, ["false"]) == [(ids, tokenizer("false")["input_ids"])]
    assert (asker.answer(question), question.choice.right) == ("true", 0)


@pytest.mark.parametrize("begins", ["{{ '' if m.role == 'user' else ' ' }}", "<|head|>{{ m.thoughts }}\n\n<|tail|>"])
def test_what_a_template_writes_before_an_answer_is_no_part_of_it(chats, tmp_path, begins):
    tokenizer = chats.make(template=chats.templates["chatml"].replace("{{ m['content'] }}", begins + "{{ m.content }}"))
    messages = [{"role": "user", "content": "a or b?"}, {"role": "assistant", "content": "a"}]
    (question,) = read_questions(pool_of(tmp_path, [{"messages": messages, "choices": ["a", "b"]}]), choose=True)
    whole = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"]
    asker = Asker(tokenizer)
    (prompt, a), (_, b) = asker.answered(question, ["a", "b"])
    assert whole[: len(prompt + a)] == prompt + a
    assert tokenizer.decode(a).strip() == "a"
    assert tokenizer.decode(b).strip() == "b"
    assert asker.prompt(question) == prompt
    messages[1]["thoughts"] = "surely a"
    (question,) = read_questions(pool_of(tmp_path, [{"messages": messages}]))
    if "thoughts" in begins:  # which the model would have to think by itself
        with pytest.raises(DataError, match=r"line 1: expected an answer.*no thoughts.*leave data\.metrics out"):
            asker.prompt(question)
    else:
        assert asker.prompt(question) == prompt


def test_a_completion_is_opened_and_its_written_end_is_no_part_of_it(chats, tmp_path):
    tokenizer = chats.make(bos=True)
    rows = [{"prompt": "the sun is", "completion": " a star<eos>"}]
    (question,) = read_questions(pool_of(tmp_path, rows))
    asker = Asker(tokenizer)
    prompt, answer = tokenizer("the sun is")["input_ids"], tokenizer(" a star", add_special_tokens=False)["input_ids"]
    assert prompt[0] == tokenizer.bos_token_id
    assert asker.prompt(question) == prompt
    assert asker.answered(question, [asker.answer(question)]) == [(prompt, answer)]


def test_csv_and_parquet_keep_the_choices(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "rows.csv").write_text('prompt,completion,choices\nis it?, yes,"[""yes"", ""no""]"\n', encoding="utf-8")
    table = pa.table({"prompt": ["is it?"], "completion": [" yes"], "choices": [["yes", "no"]]})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        (question,) = read_questions(mix(read_sources(str(tmp_path / name)))[0], choose=True)
        assert question.choice == Choice((" yes", " no"), 0)


def test_what_is_no_question_is_refused_by_its_row(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl: line 1: expected a prompt with its answer, got a text"):
        list(read_questions(pool_of(tmp_path, [{"text": "only a text"}])))
    call = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]
    with pytest.raises(DataError, match="line 1: expected an answer in words, got a call of a tool"):
        list(read_questions(pool_of(tmp_path, [{"messages": call}])))
