"""Text classification: an encoder (or decoder) with a fresh linear head."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from randlora.errors import ConfigError
from randlora.messages import note
from randlora.tasks.classification.classifiers import fit_loaded_head, head_of, load_classifier
from randlora.tasks.classification.config import TextData
from randlora.tasks.classification.labelled import Columns, Examples, require_texts
from randlora.tasks.classification.mean_pooling import MeanPoolingClassifier
from randlora.tasks.classification.metrics import METRICS, score_function
from randlora.tasks.classification.task import Classification, labels_of
from randlora.tasks.classification.text_options import check_text_data, metric_names, regression_loss
from randlora.tasks.positions import longest_text
from randlora.tasks.sources import BaseModel, load
from randlora.tasks.suites.registry import made_up_classes
from randlora.tasks.task import Goal, Split

_LONG_TEXTS = 100
"""Texts with the most characters, among which the one with the most tokens is looked for."""


class TextRows(Dataset[dict[str, Any]]):
    """Token ids and labels, row by row; `TextClassification.collate` pads them."""

    def __init__(self, examples: Examples, tokenize: Callable[..., Mapping[str, Any]]) -> None:
        self.examples, self.tokenize = examples, tokenize

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.examples.rows[index]
        texts = [row[column] for column in self.examples.inputs]
        return {**self.tokenize(*texts), "labels": self.examples.labels[index]}


class TextClassification(Classification):
    """A transformers sequence classifier.

    The head is whatever `AutoModelForSequenceClassification` puts beside the pre-trained part, or a linear layer over
    the mean of the tokens. A model that comes with a head for the same classes keeps it, with its rows in the data's
    order; any other head starts at random, so the caller seeds before the model is loaded.
    """

    data_class = TextData
    input_column = "text_column"
    task_type = "SEQ_CLS"
    data: TextData

    @classmethod
    def check(cls, data: Any) -> None:
        """See `Task.check`."""
        super().check(data)
        check_text_data(data)

    @classmethod
    def goal_for(cls, data: Any) -> Goal:
        """See `Task.goal_for`: the first metric."""
        name = metric_names(data)[0]
        return Goal(name, unit=METRICS[name].unit)

    @classmethod
    def without_data(cls, data: Any) -> "TextClassification":
        """See `Task.without_data`: as many classes as the suite has, or two; or one number."""
        known = [data.label_column] if data.regression else made_up_classes(data.suite)
        return cls(data, seed=0, facts={"label_names": known})

    @property
    def columns(self) -> Columns:
        """See `Classification.columns`."""
        data = self.data
        return Columns(data.text_column, data.text_pair_column, data.columns, data.regression)

    def look(self, split: Split) -> None:
        """See `Task.look`."""
        require_texts(self.examples(split))

    def load_model(self, base: BaseModel) -> None:
        """See `Task.load_model`; `data.max_length` must leave room for a text."""
        model, trust_remote_code = base.name, base.trust_remote_code
        data, label_names, pooling = self.data, self.label_names, self.data.pooling
        self.tokenizer: Any = load(
            AutoTokenizer.from_pretrained, model, what="tokenizer", trust_remote_code=trust_remote_code
        )
        architecture = AutoModel if pooling == "mean" else AutoModelForSequenceClassification
        self.backbone, report, known = load_classifier(
            architecture, model, label_names, trust_remote_code=trust_remote_code
        )
        head_report: Mapping[str, Any] | bool | None = report
        if pooling == "mean":
            self.backbone = MeanPoolingClassifier(self.backbone.config, self.backbone)
            head_report = load(self.backbone.load_head, model, what="head")
        if self.tokenizer.pad_token_id is None:
            # Decoders such as GPT-2 have no padding token of their own.
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.tokenizer.pad_token_id is None:
            raise ConfigError(
                "model",
                expected="a tokenizer with a padding token or an end-of-text token",
                got=f"neither in '{model}'",
            )
        self.backbone.config.pad_token_id = self.tokenizer.pad_token_id
        self.head = head_of(self.backbone, report)
        self.max_length = min(data.max_length, longest_text(self.backbone, self.tokenizer))
        special = self.tokenizer.num_special_tokens_to_add(pair=self.data.text_pair_column is not None)
        if self.max_length <= special:
            raise ConfigError(
                "data.max_length", expected=f"more than the {special} tokens around each text", got=str(self.max_length)
            )
        self._untold: list[str] = []
        if self.max_length < data.max_length:
            self._untold.append(
                f"data.max_length: {data.max_length} is more than the model reads; texts end at token {self.max_length}"
            )
        self._head_story = fit_loaded_head(self.backbone, self.head, head_report, known, label_names)

    def dataset(self, split: Split) -> Dataset[dict[str, Any]]:
        """The examples: training ones as they are, the others by length, so that batches need little padding."""
        examples = self.examples(split)
        require_texts(examples)
        if split == "train" and self._head_story:
            note(self._head_story)  # elsewhere a trained head takes its place
        while self._untold:
            note(self._untold.pop())
        if split != "train":
            lengths = [sum(map(len, texts)) for texts in _texts(examples)]
            examples = examples.select(sorted(range(len(examples)), key=lambda row: lengths[row]))
        return TextRows(examples, partial(self.tokenizer, truncation=True, max_length=self.max_length))

    def largest(self, count: int) -> tuple[Any, str]:
        """See `Task.largest`."""
        length, words = self.max_length, f"texts of {self.max_length:,} tokens, the most that data.max_length keeps"
        if self.known is None:
            examples = self.examples("train")
            longest = sorted(_texts(examples), key=lambda texts: sum(map(len, texts)))[-_LONG_TEXTS:]
            tokens = self.tokenizer(*map(list, zip(*longest, strict=True)), truncation=True, max_length=length)[
                "input_ids"
            ]
            length = max(map(len, tokens))
            words = f"texts of {length:,} tokens, the longest of the training data"
        row = {
            "input_ids": [self.tokenizer.pad_token_id] * length,
            "attention_mask": [1] * length,
            "labels": 0.0 if self.data.regression else 0,
        }
        return [row] * count, words

    def arguments(self) -> dict[str, Any]:
        """How training texts are put into batches."""
        sampling = "group_by_length" if self.data.group_by_length else "random"
        return {**super().arguments(), "train_sampling_strategy": sampling}

    def inputs(self) -> dict[str, Any]:
        """See `Classification.inputs`; of numbers the mean squared error."""
        found = {**super().inputs(), "compute_metrics": score_function(metric_names(self.data))}
        return found | ({"compute_loss_func": regression_loss} if self.data.regression else {})

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Token ids and mask, (batch, longest text of the batch), and labels (batch,)."""
        tokens = [{name: ids for name, ids in example.items() if name != "labels"} for example in batch]
        return {**self.tokenizer.pad(tokens, return_tensors="pt"), "labels": labels_of(batch)}

    def wrap(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:  # noqa: ARG002
        """The adapted model itself: it ends in the head already."""
        return adapted


def _texts(examples: Examples) -> list[tuple[str, ...]]:
    """The texts of each example."""
    return list(zip(*(examples.rows[column] for column in examples.inputs), strict=True))
