"""Text classification: an encoder (or decoder) with a fresh linear head."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from randlora.errors import ConfigError
from randlora.messages import note
from randlora.tasks.config import DataConfig
from randlora.tasks.examples import Examples, require_texts
from randlora.tasks.heads import class_names, fit_head, output_layer
from randlora.tasks.mean_pooling import MeanPoolingClassifier
from randlora.tasks.positions import longest_text
from randlora.tasks.sources import load
from randlora.tasks.task import labels_of


class TextRows(Dataset[dict[str, Any]]):
    """Token ids and labels, row by row; `TextClassification.collate` pads them."""

    def __init__(self, examples: Examples, tokenize: Callable[[str], Mapping[str, Any]]) -> None:
        self.examples, self.tokenize = examples, tokenize

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.examples.rows[index]
        return {**self.tokenize(row[self.examples.column]), "labels": self.examples.labels[index]}


class TextClassification:
    """A transformers sequence classifier; see `randlora.tasks.task.Task` for the attributes.

    The head is whatever `AutoModelForSequenceClassification` puts beside the pre-trained part, or a linear layer over
    the mean of the tokens. A model that comes with a head for the same classes keeps it, with its rows in the data's
    order; any other head starts at random, so the caller seeds before this is built.

    Args:
        model: Hub id, folder or `package:NAME/PATH`.
        data: The data section of the config.
        label_names: Names of the classes, in the order of their numbers.
        pooling: "model" for the architecture's own head, "mean" for the mean of the tokens.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ConfigError: The model or its tokenizer cannot be loaded, or `data.max_length` leaves no room for a text.
    """

    task_type: str | None = "SEQ_CLS"
    frozen: tuple[str, ...] = ()

    def __init__(
        self, model: str, data: DataConfig, label_names: Sequence[str], *, pooling: str, trust_remote_code: bool
    ) -> None:
        self.tokenizer: Any = load(
            AutoTokenizer.from_pretrained, model, what="tokenizer", trust_remote_code=trust_remote_code
        )
        known = class_names(load(AutoConfig.from_pretrained, model, what="config", trust_remote_code=trust_remote_code))
        architecture = AutoModel if pooling == "mean" else AutoModelForSequenceClassification
        self.backbone: Any
        self.backbone, report = load(
            architecture.from_pretrained,
            model,
            what="weights",
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            id2label=dict(enumerate(label_names)),
            label2id={name: index for index, name in enumerate(label_names)},
            # A head for other classes starts anew; nothing else may, see below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        mean_head = None
        if pooling == "mean":
            self.backbone = MeanPoolingClassifier(self.backbone.config, self.backbone)
            mean_head = load(self.backbone.load_head, model, what="head")
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
        self.head: tuple[str, ...] = tuple(
            name
            for name, child in self.backbone.named_children()
            if name != self.backbone.base_model_prefix and any(True for _ in child.parameters())
        )
        wrong = sorted(name for name, *_ in report["mismatched_keys"] if name.split(".")[0] not in self.head)
        if wrong:
            raise ConfigError(
                "model", expected="weights of the shapes its config.json says", got=f"another shape of {wrong[0]}"
            )
        self.max_length = min(data.max_length, longest_text(self.backbone, self.tokenizer))
        special = self.tokenizer.num_special_tokens_to_add()
        if self.max_length <= special:
            raise ConfigError(
                "data.max_length", expected=f"more than the {special} tokens around each text", got=str(self.max_length)
            )
        self._untold: list[str] = []
        if self.max_length < data.max_length:
            self._untold.append(
                f"data.max_length: {data.max_length} is more than the model reads; texts end at token {self.max_length}"
            )
        self._head_story = self._fit_head(report, mean_head, known, label_names)

    def _fit_head(
        self, report: Mapping[str, Any], mean_head: bool | None, known: list[str] | None, label_names: Sequence[str]
    ) -> str:
        """Fit the head that was loaded, if one was, to the classes; what was done, for the user."""
        found = output_layer(self.backbone, self.head, len(label_names))
        if found is None:
            return ""
        name, layer = found
        taken = mean_head
        if not isinstance(self.backbone, MeanPoolingClassifier):
            other_shape = f"{name}.weight" in {key for key, *_ in report["mismatched_keys"]}
            taken = False if other_shape else None if f"{name}.weight" in report["missing_keys"] else True
        if taken is None:
            return ""
        if not taken:
            return f"the model's head is not for {len(label_names)} classes, as the data have; the head starts anew"
        return fit_head(self.backbone, layer, known, label_names)

    def dataset(self, examples: Examples, *, training_seed: int | None) -> Dataset[dict[str, Any]]:
        """The examples: training ones as they are, test ones by length, so that batches need little padding."""
        require_texts(examples)
        if training_seed is not None and self._head_story:
            note(self._head_story)  # elsewhere a trained head takes its place
        while self._untold:
            note(self._untold.pop())
        if training_seed is None:
            texts = examples.rows[examples.column]
            examples = examples.select(sorted(range(len(examples)), key=lambda row: len(texts[row])))
        return TextRows(examples, partial(self.tokenizer, truncation=True, max_length=self.max_length))

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Token ids and mask, (batch, longest text of the batch), and labels (batch,)."""
        tokens = [{name: ids for name, ids in example.items() if name != "labels"} for example in batch]
        return {**self.tokenizer.pad(tokens, return_tensors="pt"), "labels": labels_of(batch)}

    def classifier(self, adapted: nn.Module, *, train_head: bool) -> nn.Module:  # noqa: ARG002
        """The adapted model itself: it ends in the head already."""
        return adapted
