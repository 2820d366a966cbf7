"""What a config's data are, before anything is trained: numbers of each split, and examples as training sees them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from randlora.errors import ConfigError
from randlora.messages import printable
from randlora.tasks import TASKS, Split
from randlora.tasks.classification.labelled import Examples
from randlora.tasks.classification.task import Classification
from randlora.tasks.language.encoding import IGNORED
from randlora.tasks.language.pairs import COLUMNS
from randlora.tasks.language.preview import show_example, statistics
from randlora.tasks.language.task import LanguageTask
from randlora.tasks.paths import path_of_cell
from randlora.tasks.sources import BaseModel, without_weights
from randlora.training.config.sections import TrainConfig

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class DataView:
    """Data to show.

    Attributes:
        statistics: For language data the numbers of each split, in words.
        counts: For classification a row for each class: "class", and its examples by split.
        examples: Of the training data: a title and a text each.
    """

    statistics: dict[str, str] = field(default_factory=dict)
    counts: list[dict[str, Any]] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)


def look_at(config: TrainConfig, *, examples: int = 3, colour: bool = False) -> DataView:
    """Read a config's data. Of its model no weights are loaded, and for other than language data nothing.

    Args:
        config: The config of a run.
        examples: Examples to show, spread evenly over the training data.
        colour: Mark what is learned by colour, in place of ⟦ and ⟧.

    Raises:
        ConfigError: The config is wrong, the tokenizer cannot be loaded, or the model does not fit it or the lengths.
        DataError: The data cannot be read or do not fit the task.
    """
    if examples < 0:
        raise ConfigError("--examples", expected="0 or more", got=str(examples))
    kind = TASKS[config.task]
    kind.check(config.data)
    task = kind(config.data, seed=config.seed)
    splits = [split for split in SPLITS if task.has(split)]
    if isinstance(task, LanguageTask):
        if not config.model:
            raise ConfigError("model", expected="a hub id, a folder or package:NAME/PATH", got="nothing")
        with without_weights():  # the model's context may be shorter than the lengths that are kept
            task.load_model(BaseModel(config.model, config.trust_remote_code))
        return _of_texts(task, splits, examples, colour=colour)
    if isinstance(task, Classification) and task.columns.numbers:
        return _of_numbers(task, splits, examples)
    if isinstance(task, Classification):
        return _of_classes(task, splits, examples)
    raise ConfigError("task", expected="one whose data can be shown", got=config.task)


def _of_texts(task: LanguageTask, splits: Sequence[Split], count: int, *, colour: bool) -> DataView:
    encoded = {split: task.encoded(split) for split in splits}
    rows = encoded["train"].rows
    shown = []
    for index in _spread(count, len(rows)):
        texts = [
            show_example(task.tokenizer, ids, labels, colour=colour) for ids, labels in _learned_parts(rows[index])
        ]
        shown.append((f"train, example {index + 1:,} of {len(rows):,}:", "\n  or, worse:\n".join(texts)))
    return DataView(statistics={split: str(statistics(found)) for split, found in encoded.items()}, examples=shown)


def _learned_parts(row: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of an example; of a preference those of the prompt with either answer."""
    if COLUMNS[0] not in row:
        return [(row["input_ids"], row["labels"])]
    prompt, *answers = (list(row[name]) for name in COLUMNS)
    return [(prompt + answer, [IGNORED] * len(prompt) + answer) for answer in answers]


def _of_classes(task: Classification, splits: Sequence[Split], count: int) -> DataView:
    found = {split: task.examples(split) for split in splits}
    names = task.label_names
    numbers = {split: Counter(examples.labels) for split, examples in found.items()}
    table = [
        {"class": printable(name), **{split: numbers[split][label] for split in splits}}
        for label, name in enumerate(names)
    ]
    table.append({"class": "all", **{split: len(examples) for split, examples in found.items()}})
    return DataView(counts=table, examples=_examples(found["train"], count, lambda label: printable(names[label])))


def _of_numbers(task: Classification, splits: Sequence[Split], count: int) -> DataView:
    found = {split: task.examples(split) for split in splits}
    words: dict[str, str] = {
        split: f"{len(examples):,} examples, labels from {min(examples.labels):g} to {max(examples.labels):g}, "
        f"{fmean(examples.labels):.3g} on average"
        for split, examples in found.items()
    }
    return DataView(statistics=words, examples=_examples(found["train"], count, "{:g}".format))


def _examples(train: Examples, count: int, word: Callable[[Any], str]) -> list[tuple[str, str]]:
    shown = []
    for index in _spread(count, len(train)):
        row = train.rows[index]
        cells = [_cell(row[column]) for column in train.inputs]
        title = f"train, example {index + 1:,} of {len(train):,}: {word(train.labels[index])}"
        shown.append((title, "\n".join(cells)))
    return shown


def _cell(value: Any) -> str:
    """An input in words: a text, or an image's path or size."""
    if isinstance(value, str):
        return "\n".join(printable(line) for line in value.split("\n"))
    if hasattr(value, "size"):
        return "an image of {} x {} pixels".format(*value.size)
    return printable(path_of_cell(value)) or "an image in the data file"


def _spread(count: int, total: int) -> list[int]:
    """Row numbers, evenly spread.

    >>> _spread(3, 9), _spread(3, 2)
    ([0, 3, 6], [0, 1])
    """
    count = min(count, total)
    return [place * total // count for place in range(count)]
