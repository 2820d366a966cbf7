"""The data sections of the language tasks."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from randlora.tasks.config import DataConfig
from randlora.values import BelowOne, Flag, NotNegative, OpenShare, Positive, PositiveCount

Sources = Annotated[
    str | list[str | dict[str, Any]], "a file, a hub name, or a list of these or of mappings with source and weight"
]

Metrics = Annotated[
    list[Literal["exact_match", "choice_accuracy"]], "a list of 'exact_match', 'choice_accuracy' or both, in brackets"
]


@dataclass
class LanguageData(DataConfig):
    """Texts, in any of the common forms, which is known by the columns.

    The forms are `messages`; `prompt` and `completion`; `text`; alpaca's `instruction`, `input` and `output`;
    sharegpt's `conversations`; the E2E challenge's `mr` and `ref`; and `prompt`, `chosen` and `rejected`.

    Attributes:
        train: Training data: a hub data set's name (`NAME`, `NAME:SPLIT`, `NAME@REVISION:SPLIT`), a .csv, .tsv, .json,
            .jsonl or .parquet file, or a list of these, each alone or as a mapping of `source`, `weight` (times that
            its rows are learned in an epoch), `split`, `subset` and `form`.
        validation: Validation data: likewise, or a share of the training data (below 1), or a number of its examples,
            drawn by the run's seed and left out of the training. None means none.
        test: Test data: likewise. None means none.
        max_length: Tokens that are kept of an example, from its beginning; with `packing`, tokens of a packed row. None
            means 1,024, or the model's context where that is shorter.
        drop_empty: Leave out examples that cutting leaves without a trained token, in place of an error.
        chat_template_path: A file with a chat template (Jinja) in place of the tokenizer's. None means its own.
        wording: The prompt around an instruction (alpaca's form): "alpaca", or "llm_adapters" for comparison with its
            tables. None means the chat template, or alpaca's where there is none.
        general: Score the loss on a general text that ships with the package before and after training, to see what
            the training made the model forget.
    """

    # More than the one source of other tasks.
    train: Sources = ""  # type: ignore[assignment]
    validation: PositiveCount | OpenShare | Sources | None = None  # type: ignore[assignment]
    test: Sources | None = None  # type: ignore[assignment]
    max_length: PositiveCount | None = None
    drop_empty: Flag = False
    chat_template_path: str | None = None
    wording: Literal["alpaca", "llm_adapters"] | None = None
    general: Flag = True


@dataclass
class SftData(LanguageData):
    """Examples to imitate, for sft.

    Attributes:
        completion_only_loss: Learn completions and the assistant's turns alone; false learns every token. Texts are
            learned whole either way.
        assistant_only_loss: Learn every turn of the assistant, or the "last" only; false learns every token.
        train_on_inputs: Learn every token, whatever the others say (LLM-Adapters' protocol).
        packing: Lay several examples into one row of `max_length` tokens. They do not see one another; a model that
            cannot keep them apart is refused.
        neftune_noise_alpha: Size of noise on the embeddings in training (NEFTune). None means none.
        label_smoothing_factor: Share of a label's weight that all words of the vocabulary have alike in training, in
            [0, 1).
        metrics: What is scored beside the loss, on validation and test examples with a prompt: "exact_match" (the
            likeliest answer, token by token, has the example's words) and "choice_accuracy" (of the answers to choose
            from, the right one is the likeliest; also by its length, as "choice_accuracy_norm"). None means nothing,
            since both take time.
        choices: Answers to choose from, for "choice_accuracy", where an example has no column `choices` with a list of
            its own. None means those that its prompt names as "Answer format: a/b/c".
        max_new_tokens: Tokens of an answer at most, for "exact_match". None means as many as the longest example's, and
            16.
    """

    completion_only_loss: Flag = True
    assistant_only_loss: Flag | Literal["last"] = True
    train_on_inputs: Flag = False
    packing: Flag = False
    neftune_noise_alpha: NotNegative | None = None
    label_smoothing_factor: BelowOne = 0.0
    metrics: Metrics | None = None
    choices: list[str] | None = None
    max_new_tokens: PositiveCount | None = None


@dataclass
class PreferenceData(LanguageData):
    """Pairs of a better and a worse answer, for preference.

    Attributes:
        beta: How strongly the model is held to its start (DPO's β); with 0 nothing would be learned.
        loss_type: DPOTrainer's loss: "sigmoid" is DPO's own.
    """

    beta: Positive = 0.1
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
