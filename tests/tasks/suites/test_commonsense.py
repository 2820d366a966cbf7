"""The commonsense suite: its prompts letter for letter, the choice that is found in an answer, what is refused."""

import json

import pytest

from randlora.errors import DataError
from randlora.tasks.language.alpaca import llm_adapters
from randlora.tasks.suites.commonsense import CHOICES, find_tasks, read_questions
from randlora.tasks.suites.commonsense_scores import first_choice

ASKED = "Is it so?\n\nAnswer format: true/false"
REFERENCE = """Below is an instruction that describes a task. \
Write a response that appropriately completes the request.\x20

                ### Instruction:
                Is it so?

Answer format: true/false

                ### Response:
                """


def write(folder, task, rows):
    (folder / task).mkdir(parents=True, exist_ok=True)
    (folder / task / "test.json").write_text(json.dumps(rows), encoding="utf-8")


def row(asked=ASKED, answer="false", given=""):
    return {"instruction": asked, "input": given, "output": f"the correct answer is {answer}", "answer": answer}


def test_faithful_asks_as_the_reference_tests_and_fixed_as_it_trains(tmp_path):
    write(tmp_path, "boolq", [row(), row(given="context")])
    found = read_questions(tmp_path, "boolq", protocol="faithful", wording="llm_adapters")
    assert [question.sample.prompt for question in found] == [REFERENCE, REFERENCE]
    found = read_questions(tmp_path, "boolq", protocol="fixed", wording="llm_adapters")
    assert [question.sample.prompt for question in found] == [llm_adapters(ASKED), llm_adapters(ASKED, "context")]
    assert found[0].sample.prompt.replace(" " * 16 + "\n", "\n").replace("  # noqa: E501", " ") == REFERENCE
    assert found[0].sample.completion == found[0].answer == "the correct answer is false"
    (asked, _) = read_questions(tmp_path, "boolq", protocol="fixed", wording=None)
    assert asked.sample.messages[0] == {"role": "user", "content": ASKED}


def test_choices_are_those_that_the_question_names(tmp_path):
    three = "Which?\n\nAnswer1: a Answer2: b Answer3: c\n\nAnswer format: answer1/answer2/answer3"
    write(tmp_path, "ARC-Easy", [row(three, "answer3"), row("Which?", "answer5")])
    found = read_questions(tmp_path, "ARC-Easy", protocol="fixed", wording="alpaca")
    assert [len(question.choice.candidates) for question in found] == [3, 5]
    assert [question.choice.right for question in found] == [2, 4]
    assert len(read_questions(tmp_path, "ARC-Easy", protocol="fixed", wording="alpaca", limit=1)) == 1
    assert find_tasks(tmp_path) == ["ARC-Easy"]


@pytest.mark.parametrize(
    ("task", "answer", "choice"),
    [
        ("boolq", "the correct answer is true", "true"),
        ("boolq", "untrue, so false", "true"),
        ("boolq", "True", None),
        ("piqa", "solution2 or solution1", "solution2"),
        ("social_i_qa", "answer 1", None),
        ("hellaswag", "the correct answer is ending4 ending1", "ending4"),
        ("winogrande", "Option1 option2", "option2"),
        ("ARC-Challenge", "answer12", "answer1"),
        ("openbookqa", "", None),
    ],
)
def test_the_first_choice_in_an_answer_counts(task, answer, choice):
    assert first_choice(answer, task) == choice


def test_there_are_eight_tasks():
    assert len(CHOICES) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([row(answer="maybe")]), r"test\.json: row 0, column 'answer': expected one of true, false"),
        (json.dumps([row(), row(asked="")]), r"row 1, column 'instruction': expected a text"),
        (json.dumps([{"instruction": ASKED}]), r"row 0, column 'answer'.*got None"),
        ("[]", "expected one question or more"),
        ("[1]", "row 0: expected an object"),
        ("no JSON", "line 1: expected a JSON array"),
    ],
)
def test_damaged_data_are_refused_by_their_row(tmp_path, content, message):
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "test.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_questions(tmp_path, "boolq", protocol="fixed", wording="alpaca")
    assert "\n" not in str(caught.value)


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder with TASK/test\.json"):
        find_tasks(tmp_path)
