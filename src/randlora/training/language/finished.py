"""A finished run of a language model, as the suites find it before they load anything heavy."""

from pathlib import Path

from randlora.errors import ConfigError
from randlora.tasks.language.config import LanguageData
from randlora.training.config.file import load_config
from randlora.training.language.generation import check_batch_size
from randlora.training.run.folder import CONFIG, RunFolder
from randlora.training.run.record import Record


def finished_run(run_dir: str | Path) -> tuple[RunFolder, LanguageData]:
    """Check that a folder is that of a finished run of a language model.

    Args:
        run_dir: The folder.

    Returns:
        The run's folder, and its data section.

    Raises:
        CheckpointError: The run is not finished.
        ConfigError: It trained no language model.
    """
    folder = RunFolder(run_dir)
    record = Record.load(folder.path)
    data = load_config(folder.path / CONFIG).data
    if not isinstance(data, LanguageData):
        raise ConfigError(str(run_dir), expected="a run that trained a language model", got=f"one of {record.task}")
    return folder, data


def check_amounts(limit: int | None, batch_size: int) -> None:
    """Check how many examples of a suite are asked for, and how many go together.

    Raises:
        ConfigError: A number is below 1.
    """
    check_batch_size(batch_size)
    if limit is not None and limit < 1:
        raise ConfigError("--limit", expected="1 or more", got=str(limit))
