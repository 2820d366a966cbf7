"""A general text that no task holds: its loss before and after a training shows what the model has forgotten."""

from importlib.resources import files
from typing import Any

FILE_NAME = "general.txt"
"""Short pieces of prose on many subjects, written for this project and under its licence."""


def general_text(tokenizer: Any, *, length: int) -> list[list[int]]:
    """The text as rows of token ids.

    Args:
        tokenizer: The model's.
        length: Most tokens of a row; a paragraph begins a row.
    """
    text = files("randlora.tasks.language").joinpath(FILE_NAME).read_text(encoding="utf-8")
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    encoded = tokenizer(paragraphs, add_special_tokens=False)["input_ids"]
    return [[*begin, *ids][:length] for ids in encoded if len(ids) > 1]
