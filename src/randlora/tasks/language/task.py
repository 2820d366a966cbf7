"""What the language tasks share: sources, the base model, and the general text that shows what is forgotten."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.utils.data import Dataset

from randlora.errors import ConfigError, DataError
from randlora.messages import note
from randlora.tasks.hub import named_split
from randlora.tasks.language.config import LanguageData
from randlora.tasks.language.encoding import Encoded
from randlora.tasks.language.general import general_text
from randlora.tasks.language.mixture import Source, read_sources
from randlora.tasks.language.model import load_language_model, load_tokenizer
from randlora.tasks.language.pool import Pool, count_leaks, mix
from randlora.tasks.paths import FOLDER, kind_of, local
from randlora.tasks.positions import longest_text
from randlora.tasks.rows import check_source, is_local
from randlora.tasks.sources import BaseModel
from randlora.tasks.task import Defaults, Goal, Split, Task

DEFAULT_LENGTH = 1024
"""Tokens that are kept of an example, where neither the config nor the model's context says less."""


class LanguageTask(Task):
    """A causal language model and texts; a subclass says what is learned of them."""

    goal = Goal("loss", higher=False)
    defaults = Defaults(1e-3, 5e-5, batch_size=8, eval_batch_size=8, as_lora=16)
    task_type = "CAUSAL_LM"
    trained_head = False
    takes_dtype = True
    preferences: ClassVar[bool]
    """Whether the data are pairs of answers."""

    data: LanguageData
    tokenizer: Any

    def __init__(self, data: LanguageData, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, seed=seed, facts=facts)
        self._pools: dict[Split, Pool] = {}
        self._encoded: dict[Split, Encoded] = {}

    @classmethod
    def check(cls, data: Any) -> None:
        """See `Task.check`."""
        if not data.train:
            raise DataError("data.train", expected="a hub name, a data file, or a list of such", got="nothing")
        for name in ("train", "validation", "test"):
            value = getattr(data, name)
            if value is not None and not isinstance(value, int | float):
                for source in read_sources(value, f"data.{name}"):
                    _check_source(source, f"data.{name}")

    @classmethod
    def without_data(cls, data: Any) -> "LanguageTask":
        """See `Task.without_data`: a language model needs to know nothing of its data."""
        return cls(data, seed=0, facts={})

    def has(self, split: Split) -> bool:
        """Whether the config names such data; no hub data set is assumed to have them."""
        return bool(self.data.train) if split == "train" else getattr(self.data, split) is not None

    @property
    def max_length(self) -> int:
        """Tokens of an example that are kept; before the model is loaded, at most."""
        return self.data.max_length or min(DEFAULT_LENGTH, getattr(self, "longest", DEFAULT_LENGTH))

    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    def pool(self, split: Split) -> Pool:
        """A split's samples, before they are tokens.

        Raises:
            DataError: They cannot be read, are of no known form, or of the form of another task.
        """
        if split not in self._pools:
            value = getattr(self.data, split)
            if split != "test" and isinstance(self.data.validation, int | float):
                train, held = mix(self._sources("train"), validation=self.data.validation, seed=self.seed)
                self._pools["train"] = train
                if held is not None:
                    self._pools["validation"] = held
            elif value is not None:
                self._pools[split], _ = mix(self._sources(split), seed=self.seed)
            self._check_form(split)
        return self._pools[split]

    def _sources(self, split: Split) -> list[Source]:
        found = []
        for source in read_sources(getattr(self.data, split), f"data.{split}"):
            own = source.split or split
            name, own = (source.source, own) if is_local(source.source) else named_split(source.source, own)
            found.append(replace(source, source=name, split=own))
        return found

    def _check_form(self, split: Split) -> None:
        if self._pools[split].preferences != self.preferences:
            form = self._pools[split].parts[0].form.name
            other = "sft" if self.preferences else "preference"
            raise DataError(
                f"data.{split}", expected="another form of data", got=form, hint=f"that is for task: {other}"
            )

    def look(self, split: Split) -> None:
        """See `Task.look`: every row is read, but not as tokens."""
        for _ in self.pool(split):
            pass

    def fingerprint(self, split: Split) -> str:
        """See `Task.fingerprint`: of the rows in their order, with the form that they are read in."""
        found = hashlib.sha256()
        for part in self.pool(split).parts:
            found.update(f"{part.form.name} {len(part.rows)} ".encode())
            for row in part.rows:
                found.update(json.dumps(part.records[row], sort_keys=True, default=str).encode())
        return found.hexdigest()

    def load_model(self, base: BaseModel) -> None:
        """See `Task.load_model`: a causal language model of transformers."""
        self.tokenizer = load_tokenizer(base, self.data.chat_template_path)
        self.backbone = load_language_model(base, self.tokenizer)
        self.start = base.start
        self.longest = longest_text(self.backbone, self.tokenizer)
        if (self.data.max_length or 0) > self.longest:
            expected = f"at most {self.longest:,}, the model's context"
            raise ConfigError("data.max_length", expected=expected, got=f"{self.max_length:,}")

    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:  # noqa: ARG002
        """The adapted model itself.

        Raises:
            ConfigError: The adapter is on the output embeddings, past which the loss multiplies by their weight alone.
        """
        model: Any = adapted
        head = model.get_output_embeddings()
        if isinstance(head, BaseTunerLayer):
            name = next(name for name, part in model.named_modules() if part is head).rpartition(".")[2]
            expected = "layers before the output embeddings, whose frozen weight the loss is computed with"
            raise ConfigError("method.target_modules", expected=expected, got=f"'{name}'", hint="leave it out")
        return adapted

    @abstractmethod
    def encode(self, pool: Pool) -> Encoded:
        """Samples as tokens."""

    def worded(self, split: Split) -> Pool:
        """A split's samples with the prompts that the tokenizer is used to."""
        words = self.data.wording or ("alpaca" if self.tokenizer.chat_template is None else None)
        return replace(self.pool(split), wording=words)

    def encoded(self, split: Split) -> Encoded:
        """A split's tokens; of what was cut, left out or stands in two splits the user is told, once."""
        if split not in self._encoded:
            pool = self.worded(split)
            found = self._encoded[split] = self.encode(pool)
            if len(found.rows) == 0:
                raise DataError(f"data.{split}", expected="an example or more", got="none", hint="raise max_length")
            if found.cut:
                note(f"{found.cut:,} of {len(pool):,} {split} examples are cut at {self.max_length:,} tokens")
            if found.dropped:
                note(f"{found.dropped:,} {split} examples are left out: cutting left nothing to train on")
            if split != "train" and self.known is None:
                leaks = count_leaks(self.pool("train"), pool)
                if leaks:
                    note(f"{leaks:,} of {len(pool):,} {split} examples are in the training data too")
        return self._encoded[split]

    def dataset(self, split: Split) -> Dataset[Any]:
        """See `Task.dataset`: token ids and labels; but for training by length, so that batches need little padding."""
        rows: Any = self.encoded(split).rows
        if split != "train":
            lengths = self.row_lengths(rows)
            rows = rows.select(sorted(range(len(rows)), key=lambda row: lengths[row]))
        return rows

    def about_training(self) -> dict[str, float]:
        """See `Task.about_training`: how many examples there are, and what became of the long ones."""
        found = self.encoded("train")
        cut = {"train_examples_cut": found.cut, "train_examples_left_out": found.dropped}
        return {"train_examples": len(found.rows), **cut}

    def largest_rows(self, count: int) -> tuple[int, int, str]:
        """How many of `count` rows there are, the tokens of the longest that is trained on, and how that is known."""
        if self.known is not None:
            return count, self.max_length, f"rows of {self.max_length:,} tokens, the most that data.max_length keeps"
        lengths = self.row_lengths(self.trained_rows())
        words = f"rows of {max(lengths):,} tokens, the longest of the training data"
        return min(count, len(lengths)), max(lengths), words

    def trained_rows(self) -> datasets.Dataset:
        """The rows as they are trained on."""
        return self.encoded("train").rows

    @abstractmethod
    def row_lengths(self, rows: datasets.Dataset) -> list[int]:
        """Tokens of every row."""

    def save_beside(self, folder: Path) -> None:
        """The tokenizer, with its chat template, beside the adapter."""
        self.tokenizer.save_pretrained(folder)

    def unrelated(self, trainer: Any) -> dict[str, float]:
        """See `Task.unrelated`: the loss on a general text."""
        if not self.data.general:
            return {}
        from randlora.tasks.language.scoring import mean_loss  # noqa: PLC0415 - with TRL, which is heavy

        texts = general_text(self.tokenizer, length=min(512, self.longest))
        return {"general_loss": mean_loss(trainer, [{"input_ids": ids, "labels": ids} for ids in texts])}


def _check_source(source: Source, key: str) -> None:
    check_source(source.source, key)
    if not is_local(source.source):
        return
    if kind_of(local(source.source)) == FOLDER:
        raise DataError(key, expected="a data file or a hub name", got=f"{source.source}, a folder")
    if source.split is not None or source.subset is not None:
        got = f"'{source.split or source.subset}' with the file {source.source}"
        raise DataError(key, expected="a split or a subset with hub names only", got=got)
