"""The commonsense suite of LLM-Adapters (arXiv 2304.01933): its tasks, read as questions in the words of a protocol."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from randlora.errors import DataError
from randlora.tasks.language.alpaca import Wording
from randlora.tasks.language.choices import Choice, named_choices
from randlora.tasks.language.conversation import text_in
from randlora.tasks.language.forms import FORMS, normalise
from randlora.tasks.language.json_lines import json_records
from randlora.tasks.language.questions import Question
from randlora.tasks.language.samples import Completion

Protocol: TypeAlias = Literal["faithful", "fixed"]
"""As the reference does it, whose tables are compared with, or what it means to do; see `commonsense_scores`."""

_ANSWERS = ("answer1", "answer2", "answer3", "answer4", "answer5")

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "boolq": ("true", "false"),
        "piqa": ("solution1", "solution2"),
        "social_i_qa": _ANSWERS,
        "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
        "winogrande": ("option1", "option2"),
        "ARC-Easy": _ANSWERS,
        "ARC-Challenge": _ANSWERS,
        "openbookqa": _ANSWERS,
    }
)
"""The tasks, in the order of the paper's tables, and the words that are answers to them."""

_ALPACA = next(form for form in FORMS if form.name == "alpaca")


def find_tasks(folder: Path) -> list[str]:
    """The tasks of which a folder has the test data, `TASK/test.json`.

    Raises:
        DataError: It has none.
    """
    found = [task for task in CHOICES if (folder / task / "test.json").is_file()]
    if not found:
        expected = f"a folder with TASK/test.json for one or more of {', '.join(CHOICES)}"
        raise DataError(str(folder), expected=expected, got="none")
    return found


def read_questions(
    folder: Path, task: str, *, protocol: Protocol, wording: Wording | None, limit: int | None = None
) -> list[Question]:
    """Read a task's test data: objects with `instruction`, perhaps `input`, and `answer`.

    Args:
        folder: The suite's folder.
        task: One of `CHOICES`.
        protocol: "faithful" asks in the words of the reference's test, "fixed" in those of the training.
        wording: The training's prompt around an instruction; None for the chat template.
        limit: Questions from the beginning that are read; None for all.

    Raises:
        DataError: The file cannot be read, or a row is of another make; the message names it.
    """
    path = folder / task / "test.json"
    questions: list[Question] = []
    try:
        for place, row, _ in json_records(path):
            if limit is not None and len(questions) == limit:
                break
            questions.append(_question(row, f"{path}: {place}", task, protocol, wording))
    except OSError as error:
        raise DataError(str(path), expected="a file that can be read", got=error.strerror or str(error)) from error
    if not questions:
        raise DataError(str(path), expected="one question or more", got="none")
    return questions


def said(choice: str) -> str:
    """The answer that the training teaches for a choice."""
    return f"the correct answer is {choice}"


def _question(row: dict[str, Any], where: str, task: str, protocol: Protocol, wording: Wording | None) -> Question:
    instruction = text_in(row.get("instruction"), f"{where}, column 'instruction'")
    # ARC's questions have three to five choices; each names its own.
    known = [choice for choice in named_choices(instruction) if choice in CHOICES[task]] or list(CHOICES[task])
    answer = row.get("answer")
    if answer not in known:
        raise DataError(f"{where}, column 'answer'", expected=f"one of {', '.join(known)}", got=repr(answer))
    whole = said(str(answer))
    sample: Any = Completion(reference_prompt(instruction), whole)
    if protocol == "fixed":
        sample = normalise({**row, "output": whole}, _ALPACA, where, wording=wording)
    return Question(where, sample, whole, Choice(tuple(map(said, known)), known.index(answer)))


def reference_prompt(instruction: str) -> str:
    """The prompt of the reference's test, letter for letter.

    Other than in its training there is a blank behind the first sentence, and empty lines have no blanks. What stands
    in `input` is not asked.

    Args:
        instruction: The question.
    """
    margin = " " * 16
    head = "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
    return f"{head}\n\n{margin}### Instruction:\n{margin}{instruction}\n\n{margin}### Response:\n{margin}"
