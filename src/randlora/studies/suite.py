"""The suite of a study: plain dataclasses, one field per key of its YAML file, checked by `schema`."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import ConfigDict, StringConstraints

from randlora.values import AsLora, BelowOne, Positive, PositiveCount, Seed

_NO_OTHER_KEYS = ConfigDict(extra="forbid")

SuiteName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80),
    "a name of at most 80 letters, digits and . _ -",
]
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]( ?[A-Za-z0-9_+%=-])*$", max_length=80),
    "a name of at most 80 letters, digits, single blanks and _ + % = -",
]
Budget = PositiveCount | AsLora
"""A value of `method.r`."""

Budgets = Annotated[list[Budget], "ranks or {as_lora: RANK}, in a list"]

Section = dict[str, Any]
"""Keys of a run's config, dotted or nested, and their values."""

Rates = Annotated[list[Positive], Len(1), "a list of numbers above 0, one or more"]


@dataclass
class Paper:
    """Where in `paper.csv` the paper's figures stand that are shown beside a suite's.

    Attributes:
        table: The paper's table.
        backbone: Its model, as the file calls it.
        conditions: How the paper trained, in a line for the reader.
        setting: Its setting, for a suite without shots.
        settings: Shots of the suite, or, where it has scores, its tasks with their shots -> the paper's setting.
        columns: Task of the suite, or score -> the paper's column.
        average: The paper's column that is an average over all of the suite's tasks. None where there is none.
        methods: Row of the study's table -> the paper's method.
        trained: The paper's column of trained numbers. None where the table has none.
        costs_of: Row of the study's table in percent of whose time and memory the paper prints those of the others.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    table: str
    backbone: str
    conditions: str = ""
    setting: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    average: str | None = None
    trained: str | None = None
    costs_of: str | None = None


@dataclass
class Score:
    """What every run at the best rate is asked after training; its scores are columns in the place of its test score.

    Attributes:
        commonsense: Folder with LLM-Adapters' tasks, `TASK/test.json`.
        e2e: File of the E2E challenge, with the columns `mr` and `ref`.
        protocol: Of commonsense, see `evaluate_commonsense`.
        tasks: Of commonsense. Empty means all eight.
        limit: Questions of each task, from its beginning; None for all.
        batch_size: Questions that are answered together.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    commonsense: str | None = None
    e2e: str | None = None
    protocol: Literal["fixed", "faithful"] = "fixed"
    tasks: list[str] = field(default_factory=list)
    limit: PositiveCount | None = None
    batch_size: PositiveCount = 8


@dataclass
class Suite:
    """What a study runs: tasks × shots × methods × budgets, each a search over learning rates.

    Attributes:
        name: Of the study, and of its folder.
        base: A run's config without method, seed, output and learning rate.
        tasks: Name -> what differs from `base`.
        methods: Name -> the method section of a run's config; beside its keys `learning_rates` and `budgets` of its
            own.
        learning_rates: What every method is tried at.
        rate_seeds: How many of the seeds, from the first on, every rate is tried with; their mean score chooses.
        tolerance: By how much the score at the rate taken may be worse than at the best rate, see `best_rate`.
        description: What the study asks, for the reader.
        budgets: Values of `method.r`.
        shots: Name -> what differs from the task. Empty means all data.
        seeds: Of the runs at the best rate.
        statistic: What the table shows of their scores, and ranks by.
        score: What is asked of runs after training. None means nothing but their test split.
        paper: Where the paper's figures stand.
    """

    __pydantic_config__ = _NO_OTHER_KEYS

    name: SuiteName
    base: Section
    tasks: Annotated[dict[Name, Section], Len(1), "names with a section each"]
    methods: Annotated[dict[Name, Section], Len(1), "names with a section each"]
    learning_rates: Rates
    rate_seeds: PositiveCount = 1
    tolerance: BelowOne = 0.0
    description: str = ""
    budgets: Budgets = field(default_factory=list)
    shots: dict[Name, Section] = field(default_factory=dict)
    seeds: Annotated[list[Seed], Len(1), "a list of whole numbers of at least 0, one or more"] = field(
        default_factory=lambda: [0]
    )
    statistic: Annotated[Literal["mean", "median"], "mean or median"] = "mean"
    score: Annotated[Score | None, "a section with keys of its own"] = None
    paper: Annotated[list[Paper], "a list of sections"] = field(default_factory=list)
