"""The commonsense suite on a finished run: a table, and a file of it in the run's folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import get_args

from randlora.errors import ConfigError, DataError
from randlora.files import write_atomically, writing
from randlora.messages import closest
from randlora.tasks.bars import progress_bar
from randlora.tasks.paths import local
from randlora.tasks.suites.commonsense import CHOICES, Protocol, find_tasks, read_questions
from randlora.tasks.suites.commonsense_scores import BEAMS, MAX_NEW_TOKENS, TaskScore, score_task, work
from randlora.training.language.finished import check_amounts, finished_run
from randlora.training.language.speaker import load_speaker
from randlora.training.run.record import versions


@dataclass(frozen=True)
class SuiteScore:
    """What a run scored.

    Attributes:
        tasks: The scores, task by task.
        file: Where they were written.
    """

    tasks: list[TaskScore]
    file: Path

    @property
    def generated(self) -> float:
        """Mean over the tasks of the right answers in words, in percent."""
        return mean(score.generated for score in self.tasks)

    @property
    def likelihood(self) -> float:
        """Mean over the tasks of the right likeliest choices, in percent."""
        return mean(score.likelihood for score in self.tasks)


def evaluate_commonsense(
    run_dir: str | Path,
    folder: str | Path,
    *,
    protocol: Protocol = "fixed",
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> SuiteScore:
    """Score a finished run of a language model on LLM-Adapters' commonsense tasks.

    The scores are written into the run's folder, as `commonsense-PROTOCOL.json`, once all tasks are done.

    Args:
        run_dir: The run's folder.
        folder: A folder with the test data of one or more tasks, `TASK/test.json`.
        protocol: "fixed" asks in the words of the run's training and masks the padding; "faithful" does as the
            reference, for comparison with published tables: its batch size changes the answers.
        tasks: Names of the tasks; None for all that the folder has.
        limit: Questions of each task, from its beginning; None for all.
        batch_size: Questions that are answered together.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: A task or the protocol is unknown, a number is below 1, or the run is not of a language model.
        DataError: The data cannot be read, or are of another make.
        OutputError: The file cannot be written.
    """
    check_amounts(limit, batch_size)
    if protocol not in get_args(Protocol):
        raise ConfigError("--protocol", expected=" or ".join(get_args(Protocol)), got=repr(protocol))
    run, data = finished_run(run_dir)
    chosen = _choose(local(str(folder)), tasks)
    speaker = load_speaker(str(run.path), model, trust_remote_code=trust_remote_code)
    wording = data.wording or (None if speaker.chats else "alpaca")
    found = {
        task: read_questions(local(str(folder)), task, protocol=protocol, wording=wording, limit=limit)
        for task in chosen
    }
    scores = []
    with progress_bar("commonsense", "answer", total=sum(map(work, found.values()))) as bar:
        for task, questions in found.items():
            bar.set_postfix_str(task)
            common = {"context": speaker.context, "batch_size": batch_size}
            scores.append(
                score_task(
                    speaker.model, speaker.tokenizer, task, questions, protocol=protocol, advance=bar.update, **common
                )
            )
    result = SuiteScore(scores, run.path / f"commonsense-{protocol}.json")
    content = {
        "source": str(folder),
        "protocol": protocol,
        "wording": "the reference's test" if protocol == "faithful" else wording or "chat template",
        "num_beams": BEAMS,
        "max_new_tokens": MAX_NEW_TOKENS,
        "batch_size": batch_size,
        "limit": limit,
        "tasks": [asdict(score) for score in scores],
        "mean": {"tasks": len(scores), "generated": result.generated, "likelihood": result.likelihood},
        "versions": versions(),
    }
    with writing(run.path):
        write_atomically(result.file, json.dumps(content, indent=2) + "\n")
    return result


def _choose(folder: Path, tasks: Sequence[str] | None) -> list[str]:
    there = find_tasks(folder)
    for task in tasks or ():
        if task not in CHOICES:
            near = closest(task, CHOICES)
            hint = f"did you mean {near}?" if near else ""
            raise ConfigError("--tasks", expected=f"of {', '.join(CHOICES)}", got=repr(task), hint=hint)
        if task not in there:
            raise DataError(str(folder / task / "test.json"), expected="the task's test data", got="no such file")
    return there if tasks is None else [task for task in there if task in tasks]
