"""Sources read and mixed: the samples to train on and those to validate with, made from their rows when asked for."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from randlora.errors import DataError
from randlora.messages import note
from randlora.tasks.language.alpaca import Wording
from randlora.tasks.language.forms import Form, normalise, recognise
from randlora.tasks.language.mixture import Source, draw, hold_out, require_drawn
from randlora.tasks.language.records import Records, read_records
from randlora.tasks.language.samples import Located, Sample

PREFERENCE = "preference"

_FOREIGN = ("system", "system_prompt", "history", "context", "question")
"""Columns of other tools' forms, in which a part of the conversation stands."""


@dataclass(frozen=True)
class Part:
    """Rows of one source.

    Attributes:
        records: All its rows.
        form: Their form.
        rows: Numbers of the rows in this part, as often as they are learned.
    """

    records: Records
    form: Form
    rows: Sequence[int]


@dataclass(frozen=True)
class Pool:
    """Samples of one or more sources; iterating gives each with its place.

    Attributes:
        parts: The sources' rows.
        wording: The prompt around an instruction; None for the chat template.
    """

    parts: Sequence[Part]
    wording: Wording | None = "alpaca"

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    def __iter__(self) -> Iterator[Located]:
        for part in self.parts:
            for row in part.rows:
                where = part.records.where(row)
                yield where, normalise(part.records[row], part.form, where, wording=self.wording)

    @property
    def preferences(self) -> bool:
        """Whether the samples are preferences."""
        return self.parts[0].form.name == PREFERENCE


def mix(
    sources: Sequence[Source],
    *,
    wording: Wording | None = "alpaca",
    validation: float | None = None,
    seed: int = 0,
) -> tuple[Pool, Pool | None]:
    """Read sources and mix them by their weights.

    Args:
        sources: What to read.
        wording: The prompt around an instruction; None for the chat template.
        validation: Share or number of rows to hold out; None for none.
        seed: Seed of all draws.

    Returns:
        The samples to train on, and those held out, each of them once.

    Raises:
        DataError: A source cannot be read, or preferences stand beside examples to imitate.
        ConfigError: `validation` does not part the rows.
    """
    read = [(source, read_records(source.source, source.split or "train", source.subset)) for source in sources]
    forms = [form_of(records, source.form) for source, records in read]
    if len({form.name == PREFERENCE for form in forms}) > 1:
        other = next(records.source for (_, records), form in zip(read, forms, strict=True) if form.name == PREFERENCE)
        raise DataError(other, expected="examples to imitate, as in the other sources", got="preferences")
    for _, records in read:
        _tell_of_foreign(records)
    counts = [len(records) for _, records in read]
    held = hold_out(counts, validation, seed=f"{seed}/validation") if validation is not None else [[]] * len(read)
    train = []
    for place, ((source, records), form, out) in enumerate(zip(read, forms, held, strict=True)):
        without = set(out)
        left = [row for row in range(len(records)) if row not in without]
        drawn = draw(len(left), source.weight, seed=f"{seed}/{place}")
        require_drawn(source, len(left), len(drawn))
        train.append(Part(records, form, [left[index] for index in drawn]))
    kept = [Part(records, form, out) for (_, records), form, out in zip(read, forms, held, strict=True)]
    return Pool(train, wording), Pool(kept, wording) if validation is not None else None


def _tell_of_foreign(records: Records) -> None:
    """Say which columns are passed over though they may hold a part of what was said."""
    found = [f"'{name}'" for name in _FOREIGN if name in records.columns]
    if found:
        which = f"column {found[0]} is" if len(found) == 1 else f"columns {', '.join(found)} are"
        note(f"{records.source}: the {which} passed over; what stands there must be in the messages or the prompt")


def form_of(records: Records, named: str | None = None) -> Form:
    """Tell the form of rows by their columns.

    Args:
        records: The rows.
        named: The form to read them in, where their columns belong to several.

    Raises:
        DataError: They make no form, or belong to more than one; where rows differ, the message names the first that
            is of another form than those before it.
    """
    try:
        return recognise(records.columns, records.source, named)
    except DataError:
        if (mixed := _mixed(records)) is not None:
            raise mixed from None
        raise


def _mixed(records: Records) -> DataError | None:
    """The error of rows of different forms in one file, which names the first that differs; None where none does."""
    first: tuple[Form, int] | None = None
    for index in range(len(records)):
        filled = [column for column, value in records[index].items() if value not in (None, "")]
        try:
            form = recognise(filled, records.source)
        except DataError:  # a row of no form, or of two, tells nothing
            continue
        first = first or (form, index)
        if form != first[0]:
            place = records.where(first[1]).removeprefix(f"{records.source}: ")
            expected = f"the form '{first[0].name}', as in {place}"
            hint = "put the rows of each form into a file of their own, and list the files in data.train"
            return DataError(records.where(index), expected=expected, got=f"'{form.name}'", hint=hint)
    return None


def count_leaks(train: Pool, validation: Pool) -> int:
    """Count the samples to validate with that are learned too: the same texts or messages, whatever row they are in."""
    learned = {_digest(sample) for _, sample in train}
    return sum(_digest(sample) in learned for _, sample in validation)


def _digest(sample: Sample) -> bytes:
    text = json.dumps([type(sample).__name__, asdict(sample)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
