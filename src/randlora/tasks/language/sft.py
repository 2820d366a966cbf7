"""Supervised fine-tuning of a language model on examples to imitate, by TRL's SFTTrainer."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import datasets

from randlora.errors import ConfigError
from randlora.tasks.language.config import SftData
from randlora.tasks.language.encoding import Encoded, encode
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.metrics import answer_scores
from randlora.tasks.language.packing import keeps_apart
from randlora.tasks.language.pool import Pool
from randlora.tasks.language.questions import Asker, Question, read_questions
from randlora.tasks.language.task import LanguageTask
from randlora.tasks.sources import BaseModel
from randlora.tasks.task import SPLITS, Split


class Sft(LanguageTask):
    """Conversations, prompts with completions, instructions or texts."""

    data_class = SftData
    preferences = False
    data: SftData

    @classmethod
    def check(cls, data: Any) -> None:
        """See `LanguageTask.check`; answers are scored on examples that are not learned."""
        super().check(data)
        if data.metrics and data.validation is None and data.test is None:
            hint = "add data.validation or data.test, or leave it out"
            raise ConfigError("data.metrics", expected="examples to score answers on", got="none", hint=hint)

    def fingerprint(self, split: Split) -> str:
        """See `Task.fingerprint`; where answers are scored, every example must be a question."""
        self._require_questions(split)
        return super().fingerprint(split)

    def look(self, split: Split) -> None:
        """See `LanguageTask.look`; likewise."""
        super().look(split)
        self._require_questions(split)

    def _require_questions(self, split: Split) -> None:
        if self.data.metrics and split != "train":
            for _ in self._read_questions(self.pool(split)):
                pass

    def _read_questions(self, pool: Pool) -> Iterator[Question]:
        choose = "choice_accuracy" in (self.data.metrics or [])
        return read_questions(pool, choose=choose, choices=self.data.choices)

    def trainer_classes(self) -> Any:
        """TRL's, with scores by token."""
        from trl import SFTConfig  # noqa: PLC0415 - heavy, and of no use to the other tasks

        from randlora.tasks.language.sft_trainer import SftTrainer  # noqa: PLC0415

        return SftTrainer, SFTConfig

    def load_model(self, base: BaseModel) -> None:
        """See `LanguageTask.load_model`; with `packing` the model must keep packed examples apart."""
        super().load_model(base)
        if self.data.packing and not keeps_apart(self.backbone):
            raise ConfigError(
                "data.packing",
                expected="a model that keeps packed examples apart",
                got=f"{type(self.backbone).__name__}, which lets each see those before it",
                hint="set it to false",
            )

    def dataset(self, split: Split) -> Any:
        """See `LanguageTask.dataset`; before anything is trained every question must be one that can be asked."""
        if split == "train" and self.data.metrics:
            asker, splits = Asker(self.tokenizer), [other for other in SPLITS if other != "train" and self.has(other)]
            for question in chain.from_iterable(self._read_questions(self.worded(other)) for other in splits):
                asker.require(question)
        return super().dataset(split)

    def encode(self, pool: Pool) -> Encoded:
        """Token ids, and labels of those that are learned."""
        data = self.data
        loss = Loss(data.completion_only_loss, data.assistant_only_loss, data.train_on_inputs)
        return encode(self.tokenizer, pool, loss=loss, max_length=self.max_length, drop_empty=data.drop_empty)

    def trained_rows(self) -> datasets.Dataset:
        """See `LanguageTask.trained_rows`; packed rows are not full, and may be fewer than a batch."""
        from trl import pack_dataset  # noqa: PLC0415 - heavy, and of no use to the other tasks

        rows = super().trained_rows()
        return pack_dataset(rows, self.max_length) if self.data.packing else rows

    def row_lengths(self, rows: datasets.Dataset) -> list[int]:
        """See `LanguageTask.row_lengths`."""
        return [len(ids) for ids in rows["input_ids"]]

    def largest(self, count: int) -> tuple[Any, str]:
        """See `Task.largest`."""
        count, length, words = self.largest_rows(count)
        if self.data.packing:
            words = f"packed {words}"
        ids = [[self.tokenizer.eos_token_id] * length] * count
        return datasets.Dataset.from_dict({"input_ids": ids, "labels": ids}), words

    def arguments(self) -> dict[str, Any]:
        """SFTConfig's fields: the examples are tokens already, and cut."""
        data = self.data
        return {
            "max_length": self.max_length,
            "packing": data.packing,
            "eval_packing": False,
            "dataset_kwargs": None if data.packing else {"skip_prepare_dataset": True},
            "neftune_noise_alpha": data.neftune_noise_alpha,
            "label_smoothing_factor": data.label_smoothing_factor,
            "gradient_checkpointing": False,  # where it is wanted, the model has it on already
            "prediction_loss_only": True,
            "completion_only_loss": False,  # the labels say it
        }

    def inputs(self) -> dict[str, Any]:
        """The tokenizer."""
        return {"processing_class": self.tokenizer}

    def score(self, trainer: Any, split: Split) -> dict[str, float]:
        """See `Task.score`; with `metrics`, by the model's answers too."""
        scores = super().score(trainer, split)
        if not self.data.metrics:
            return scores
        asker = Asker(self.tokenizer)
        questions = self._read_questions(self.worded(split))
        # Those that are left out of the loss, by `drop_empty`, are no questions either.
        kept = [question for question in questions if len(asker.prompt(question)) < self.max_length]
        limit = self.data.max_new_tokens
        return scores | answer_scores(trainer, kept, self.data.metrics, context=self.longest, max_new_tokens=limit)
