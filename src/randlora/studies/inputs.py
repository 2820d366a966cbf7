"""What a study's runs are trained on: files that are still what they were, data sets of the hub at one commit each."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import filelock

from randlora.errors import OutputError
from randlora.files import write_if_new, writing
from randlora.studies.progress import Progress
from randlora.studies.scores import source_of
from randlora.studies.study import Study
from randlora.tasks.config import DataConfig
from randlora.tasks.fingerprint import model_fingerprint
from randlora.tasks.hub import at_commit, commit_of, named_split
from randlora.tasks.language.mixture import Source, read_sources
from randlora.tasks.paths import FILE, FOLDER, kind_of, local
from randlora.tasks.rows import is_local
from randlora.tasks.sources import locate
from randlora.tasks.task import SPLITS
from randlora.training.config import TrainConfig
from randlora.training.config.file import load_config
from randlora.training.run.folder import CONFIG

FILE_NAME = "inputs.json"


def check_inputs(study: Study, found: Sequence[Progress], configs: Iterable[TrainConfig]) -> None:
    """Check that no data or model of a run, finished or under way, has changed, and keep the digests of all there are.

    A run is compared with its own data when it is resumed, but the runs of one table have different folders: one that
    is trained later must not stand beside one that learned from other rows. Files are known by their content, the many
    of a folder of images by names, sizes and times. Data sets of the hub are `at_commits` of their own; of a model on
    the hub the name is all that is looked at.

    Args:
        study: The study, begun.
        found: How far its cells are.
        configs: Of the runs whose inputs are looked at.

    Raises:
        ConfigError: The config of a run in the folder is damaged.
        OutputError: Something has changed that a run was trained on, or the folder cannot be written.
    """
    now = {source: content for config in configs for source, content in _digests(study, config)}
    with _kept(study) as known:
        changed = {source for source, content in now.items() if known.get(source, content) != content}
        done = _trained(study, found) if changed else ()
        for source in (source for config in done for source, _ in _digests(study, config)):
            if source in changed:
                hint = "choose another --output, or put the content back that the other runs were trained on"
                got = "one that has changed since"
                expected = f"what runs of {study.suite.name} were trained on"
                raise OutputError(source, expected=expected, got=got, hint=hint)
        known.update(now)


def _trained(study: Study, found: Sequence[Progress]) -> Iterator[TrainConfig]:
    """Configs of what was trained, or is: also of cells that the plan has no more, as it may have them again."""
    yield from (entry.cell.config for entry in found if entry.count("done", "running"))
    for path in (study.folder / "runs").glob(f"*/{CONFIG}"):
        yield load_config(path)


def at_commits(study: Study, config: TrainConfig) -> TrainConfig:
    """A run's config with every data set of the hub at the commit at which the study has it.

    That is the newest, or that of its revision, when the first run of the study asked for it.

    Args:
        study: The study, begun.
        config: Of the run.

    Raises:
        DataError: The hub does not know the data set or cannot be reached, and no run has asked for it before.
        OutputError: The folder cannot be written.
    """

    def kept(key: str, name: str, subset: str | None) -> str:
        with _kept(study) as known:
            known[key] = known.get(key) or commit_of(name, subset)
            return known[key]

    return _with_commits(config, kept)


def at_known_commits(study: Study, config: TrainConfig) -> TrainConfig:
    """A run's config with the data sets of the hub at the commits at which the study has them, as far as it has any.

    Args:
        study: The study, which need not be begun.
        config: Of the run.

    Raises:
        OutputError: What the study has written is damaged.
    """
    known = _read(study.folder / FILE_NAME)
    return _with_commits(config, lambda key, *_: known.get(key))


def _with_commits(config: TrainConfig, commit: Callable[[str, str, str | None], str | None]) -> TrainConfig:
    data = config.data
    values = {key: _with_commit(getattr(data, key), getattr(data, "subset", None), commit) for key in SPLITS}
    return replace(config, data=replace(data, **values))


def _with_commit(value: Any, subset: str | None, commit: Callable[[str, str, str | None], str | None]) -> Any:
    """One value of the data section; a share, or nothing, stays what it is."""
    if isinstance(value, list):
        return [_with_commit(entry, subset, commit) for entry in value]
    if isinstance(value, dict):
        return {**value, "source": _with_commit(value["source"], value.get("subset"), commit)}
    if not isinstance(value, str) or is_local(value):
        return value
    name, _ = named_split(value, "")
    found = commit(f"hf://datasets/{name}" + (f", {subset}" if subset else ""), name, subset)
    return value if found is None else at_commit(value, found)


def sources_of(data: DataConfig) -> Iterator[Source]:
    """The files, folders and data sets of the hub that a data section names."""
    for value in (getattr(data, key) for key in SPLITS):
        yield from read_sources(value) if isinstance(value, str | list) and value else ()


@contextmanager
def _kept(study: Study) -> Iterator[dict[str, str]]:
    """What the study's file holds, to be changed in the block, by one worker at a time."""
    path = study.folder / FILE_NAME
    with writing(study.folder), filelock.FileLock(path.with_name(f".{FILE_NAME}.lock")):
        known = _read(path)
        yield known
        write_if_new(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, str]:
    try:
        return dict[str, str](json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(str(path), expected="what a study writes", got=type(error).__name__) from error


def _digests(study: Study, config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The data, the model and the questions of this machine that a run needs, each with a digest of its content."""
    score = study.suite.score
    for name in (*(source.source for source in sources_of(config.data)), *([source_of(score)] if score else [])):
        path = local(name)
        if kind_of(path) == FILE:
            yield name, _content(str(path), _stamp(path))
        elif kind_of(path) == FOLDER:
            yield name, _listing(path)
    location = locate(config.model)
    if (path := Path(location)).exists():
        yield config.model, _content(location, _stamp(path))


@cache
def _content(location: str, _stamp: object) -> str:
    """Of a file, or of the files of a model's folder; what has its sizes and times still is not read again."""
    return str(model_fingerprint(location))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    files = [path] if kind_of(path) == FILE else sorted(file for file in path.iterdir() if kind_of(file) == FILE)
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _listing(folder: Path) -> str:
    """Of names, sizes and times of the files in a folder, since there may be millions."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if kind_of(file) == FILE:
            known = file.stat()
            place = f"{file.relative_to(folder)} {known.st_size} {int(known.st_mtime)}\n"
            found.update(place.encode(errors="surrogateescape"))
    return found.hexdigest()
