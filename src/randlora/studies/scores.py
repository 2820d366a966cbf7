"""What a study asks of its runs beside their own test data: a suite of language tasks, whose scores are columns."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from randlora.errors import ConfigError, RandLoraError
from randlora.studies.cells import Cell
from randlora.studies.suite import Score, Suite
from randlora.tasks.language.config import LanguageData
from randlora.tasks.paths import NOTHING, kind_of, local
from randlora.tasks.suites.commonsense import CHOICES, read_questions
from randlora.tasks.suites.e2e import read_meanings
from randlora.tasks.suites.e2e_scores import METRICS

_E2E_PACKAGES = ("sacrebleu", "nltk", "pycocoevalcap")


def check_score(suite: Suite, cells: Sequence[Cell]) -> None:
    """Check what a suite says of scores.

    Raises:
        ConfigError: It names two suites of tasks or none, an unknown task, an option of the other, or its runs are not
            of language models.
    """
    score = suite.score
    if score is None:
        return
    if (score.commonsense is None) == (score.e2e is None):
        got = "none" if score.e2e is None else "both"
        raise ConfigError("score", expected="one of commonsense (a folder) and e2e (a file)", got=got)
    if score.e2e is not None and (score.tasks or score.protocol != "fixed"):
        raise ConfigError("score", expected="tasks and protocol beside commonsense only", got="one beside e2e")
    for task in score.tasks:
        if task not in CHOICES:
            raise ConfigError("score.tasks", expected=f"of {', '.join(CHOICES)}", got=repr(task))
    for cell in cells:
        if not isinstance(cell.config.data, LanguageData):  # as `finished_run` asks
            raise ConfigError("score", expected="runs of language models, which it asks", got=cell.config.task)


def columns_of(score: Score) -> dict[str, str]:
    """The scores, each of which is a column of the table, and their units."""
    if score.commonsense is not None:
        return dict.fromkeys(score.tasks or CHOICES, "%")
    return METRICS


def source_of(score: Score) -> str:
    """The folder or file with the questions."""
    return score.commonsense or score.e2e or ""


def score_faults(score: Score | None, *, elsewhere: bool) -> Iterator[str]:
    """What would keep a finished run from being scored, as far as it can be known without one.

    Args:
        score: What the suite says.
        elsewhere: Whether files that are not here may be on the machine of the runs.
    """
    if score is None or (elsewhere and kind_of(local(source_of(score))) == NOTHING):
        return
    try:
        if score.commonsense is not None:
            for task in columns_of(score):
                read_questions(local(score.commonsense), task, protocol=score.protocol, wording="alpaca")
        else:
            read_meanings(local(source_of(score)))
            missing = [name for name in _E2E_PACKAGES if importlib.util.find_spec(name) is None]
            if missing:
                hint = "pip install 'randlora[suites]'"
                raise ConfigError("score.e2e", expected=f"{', '.join(missing)} to be installed", got="none", hint=hint)
    except RandLoraError as error:
        yield f"score: {error}"


def score_run(run: Path, score: Score) -> None:
    """Ask a finished run, which keeps the scores in its folder.

    Raises:
        RandLoraError: See `evaluate_commonsense` and `evaluate_e2e`.
    """
    common: dict[str, Any] = {"limit": score.limit, "batch_size": score.batch_size}
    # These load transformers' generation, which a study of other runs has no use for.
    if score.commonsense is not None:
        from randlora.training.language.commonsense import evaluate_commonsense  # noqa: PLC0415

        tasks = list(columns_of(score))
        evaluate_commonsense(run, score.commonsense, protocol=score.protocol, tasks=tasks, **common)
    else:
        from randlora.training.language.e2e import evaluate_e2e  # noqa: PLC0415

        evaluate_e2e(run, source_of(score), **common)


def scores_of(run: Path, score: Score) -> dict[str, float | None] | None:
    """What a run scored, by column; None where it has not been asked, or not as the suite asks."""
    file = run / ("e2e.json" if score.e2e is not None else f"commonsense-{score.protocol}.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        asked = content["source"], content["limit"], content["batch_size"]
        if asked != (source_of(score), score.limit, score.batch_size):
            return None
        if score.e2e is not None:
            found = {entry["metric"]: entry["value"] for entry in content["scores"]}
        else:
            found = {entry["task"]: entry["generated"] for entry in content["tasks"]}
    except (OSError, ValueError, KeyError, TypeError):  # it is asked again, which writes the file anew
        return None
    return {name: found[name] for name in columns_of(score)} if found.keys() >= columns_of(score).keys() else None
