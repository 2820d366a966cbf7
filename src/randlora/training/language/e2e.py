"""The E2E challenge on a finished run: a table, and a file of it in the run's folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from randlora.errors import DataError
from randlora.files import write_atomically, writing
from randlora.tasks.bars import progress_bar
from randlora.tasks.language.generation import GREEDY, complete
from randlora.tasks.language.questions import Asker
from randlora.tasks.paths import local
from randlora.tasks.suites.e2e import DECODING, MAX_NEW_TOKENS, Meaning, read_meanings
from randlora.tasks.suites.e2e_scores import E2eScore, e2e_scores
from randlora.training.language.finished import check_amounts, finished_run
from randlora.training.language.speaker import Speaker, load_speaker
from randlora.training.run.record import versions

FILE_NAME = "e2e.json"


def evaluate_e2e(
    run_dir: str | Path,
    file: str | Path,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[list[E2eScore], Path]:
    """Let a finished run of a language model say the E2E challenge's meanings, and score what it says.

    Answers are searched with 10 beams, a length penalty of 0.8 and no four tokens twice. Scores and answers are written
    into the run's folder, as `e2e.json`.

    Args:
        run_dir: The run's folder.
        file: A data file with the columns `mr` and `ref`, the references of a meaning in rows of their own.
        limit: Meanings from the beginning of the file; None for all.
        batch_size: Meanings that are answered together.
        model: Where the base model is, if not where training had it.
        trust_remote_code: Whether Python code that comes with the model may run, whatever the folder says.

    Returns:
        The scores, and the file.

    Raises:
        CheckpointError: The run is not finished, or its adapter is damaged or of another model.
        ConfigError: A number is below 1, or the run is not of a language model.
        DataError: The data cannot be read, are of another make, or leave no room for an answer.
        OutputError: The file cannot be written.
    """
    check_amounts(limit, batch_size)
    run, _ = finished_run(run_dir)
    meanings = read_meanings(local(str(file)), limit)
    speaker = load_speaker(str(run.path), model, trust_remote_code=trust_remote_code)
    answers = _answers(speaker, meanings, batch_size)
    scores = e2e_scores(answers, [meaning.references for meaning in meanings])
    content = {
        "source": str(file),
        **DECODING,
        "max_new_tokens": MAX_NEW_TOKENS,
        "batch_size": batch_size,
        "limit": limit,
        "meanings": len(meanings),
        "scores": [asdict(score) for score in scores],
        "answers": answers,
        "versions": versions(),
    }
    with writing(run.path):
        write_atomically(run.path / FILE_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return scores, run.path / FILE_NAME


def _answers(speaker: Speaker, meanings: Sequence[Meaning], batch_size: int) -> list[str]:
    asker = Asker(speaker.tokenizer)
    prompts = [asker.prompt(meaning.question) for meaning in meanings]
    for meaning, ids in zip(meanings, prompts, strict=True):
        if len(ids) + MAX_NEW_TOKENS > speaker.context:
            most = max(speaker.context - MAX_NEW_TOKENS, 0)
            expected = f"at most {most:,} tokens, with room for an answer in the model's context"
            raise DataError(meaning.question.where, expected=expected, got=f"{len(ids):,}")
    with progress_bar("E2E", "answer", total=len(prompts)) as bar:
        found = complete(
            speaker.model,
            speaker.tokenizer,
            prompts,
            [MAX_NEW_TOKENS] * len(prompts),
            batch_size=batch_size,
            options={**GREEDY, **DECODING},
            advance=bar.update,
        )
    # Behind the first line break there is no sentence of the challenge's.
    return [answer.strip().split("\n")[0].strip() for answer in found]
