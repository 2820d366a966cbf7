"""What to train, validate and test on: what the data sections of all tasks have in common."""

from dataclasses import dataclass

from pydantic import ConfigDict

from randlora.values import OpenShare, PositiveCount


@dataclass
class DataConfig:
    """Where the examples come from.

    Whatever is chosen (a learning rate, an epoch, a budget) is chosen on the validation split; the test split is scored
    once, for what was chosen.

    Attributes:
        suite: A data set of `randlora.tasks.suites`, such as "glue/cola": its columns, splits and metrics are taken for
            keys that are not given. None means none.
        train: Training data: a hub data set's name (`NAME`, `NAME:SPLIT`, `NAME@REVISION:SPLIT`), a .csv, .tsv, .json,
            .jsonl or .parquet file, or (images) a folder with one folder per class.
        validation: Validation data: of the same kinds, or a share of the training data (below 1), or a number of its
            examples, drawn by the run's seed and left out of the training. None means none.
        test: Test data, of the same kinds as `train`. None means the "test" split of the hub data set named in `train`;
            with files and folders it has to be given.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    suite: str | None = None
    train: str = ""
    validation: PositiveCount | OpenShare | str | None = None
    test: str | None = None
