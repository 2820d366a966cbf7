"""Training on pairs of a better and a worse answer, by TRL's DPOTrainer."""

from dataclasses import replace
from typing import Any

import datasets

from randlora.errors import ConfigError
from randlora.formats.base_weights import changed_by
from randlora.tasks.language.config import PreferenceData
from randlora.tasks.language.encoding import Encoded
from randlora.tasks.language.pairs import COLUMNS, encode_preferences
from randlora.tasks.language.pool import Pool
from randlora.tasks.language.task import LanguageTask
from randlora.tasks.task import Goal


class PreferenceTask(LanguageTask):
    """Prompts with two answers; the model is held to its own start, of which there is no second copy in memory."""

    data_class = PreferenceData
    preferences = True
    goal = Goal("reward_accuracy", unit="%")
    defaults = replace(LanguageTask.defaults, learning_rate=5e-5, full_learning_rate=1e-6)
    data: PreferenceData

    @classmethod
    def check_method(cls, data: Any, config: Any) -> None:
        """See `Task.check_method`; the model without its adapter is what the answers are held to."""
        super().check_method(data, config)
        start = changed_by(config)
        if start is not None:
            expected = "a method that leaves the base weights as they are, for preference"
            hint = "the reference is the model without its adapter; a run of sft can be merged and gone on from"
            raise ConfigError("method", expected=expected, got=start, hint=hint)

    def trainer_classes(self) -> Any:
        """TRL's."""
        from trl import DPOConfig  # noqa: PLC0415 - heavy, and of no use to the other tasks

        from randlora.tasks.language.dpo_trainer import DpoTrainer  # noqa: PLC0415

        return DpoTrainer, DPOConfig

    def encode(self, pool: Pool) -> Encoded:
        """Token ids of prompts and answers."""
        return encode_preferences(self.tokenizer, pool, max_length=self.max_length, drop_empty=self.data.drop_empty)

    def row_lengths(self, rows: datasets.Dataset) -> list[int]:
        """See `LanguageTask.row_lengths`: of the prompt with the longer answer."""
        columns = [rows[name] for name in COLUMNS]
        return [
            len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in zip(*columns, strict=True)
        ]

    def largest(self, count: int) -> tuple[Any, str]:
        """See `Task.largest`; both answers are taken to be as long."""
        count, length, words = self.largest_rows(count)
        token = [self.tokenizer.eos_token_id]
        rows = {"prompt_ids": [token] * count, **dict.fromkeys(COLUMNS[1:], [token * (length - 1)] * count)}
        return datasets.Dataset.from_dict(rows), words

    def arguments(self) -> dict[str, Any]:
        """DPOConfig's fields."""
        return {
            "beta": self.data.beta,
            "loss_type": [self.data.loss_type],
            "max_length": self.max_length,
            "gradient_checkpointing": False,  # where it is wanted, the model has it on already
            "prediction_loss_only": True,
        }

    def inputs(self) -> dict[str, Any]:
        """The tokenizer, and what the model is held to."""
        return {"processing_class": self.tokenizer, "start": self.start}
