"""What a study's runs are trained on: whether it is still what it was for the runs that are there."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from randlora.errors import OutputError
from randlora.files import digest, write_if_new, writing
from randlora.studies.study import Study
from randlora.tasks.fingerprint import model_fingerprint
from randlora.tasks.language.mixture import read_sources
from randlora.tasks.paths import FILE, FOLDER, kind_of, local
from randlora.tasks.sources import locate
from randlora.training.config import TrainConfig

FILE_NAME = "inputs.json"


def check_inputs(study: Study) -> None:
    """Check that no data or model of a finished run has changed, and keep the digests of all there are.

    A run is compared with its own data when it is resumed, but the runs of one table have different folders: one that
    is trained later must not stand beside one that learned from other rows. Files are known by their content, the many
    of a folder of images by names, sizes and times. What lies on the hub is not looked at.

    Args:
        study: The study, begun.

    Raises:
        OutputError: Something has changed that a finished run was trained on, or the folder cannot be written.
    """
    path = study.folder / FILE_NAME
    try:
        known = dict[str, str](json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(str(path), expected="what a study writes", got=type(error).__name__) from error
    now = _digests(cell.config for cell in study.cells)
    for entry in study.progress():
        for source in _digests([entry.cell.config], now) if entry.count("done") else ():
            if known.get(source, now[source]) != now[source]:
                hint = "choose another --output, or put the content back that the finished runs were trained on"
                got = "one that has changed since"
                expected = f"what runs of {study.suite.name} were trained on"
                raise OutputError(source, expected=expected, got=got, hint=hint)
    with writing(study.folder):
        write_if_new(path, json.dumps({**known, **now}, indent=1, ensure_ascii=False) + "\n")


def _digests(configs: Iterable[TrainConfig], known: dict[str, str] | None = None) -> dict[str, str]:
    """Source, as the configs name it -> digest of its content; those that are known are not read again."""
    found = dict[str, str]()
    for config in configs:
        for source in _data(config):
            found[source] = (known or {}).get(source) or found.get(source) or _digest(local(source))
        model = (known or {}).get(config.model) or found.get(config.model) or model_fingerprint(locate(config.model))
        if model is not None:
            found[config.model] = model
    return found


def _data(config: TrainConfig) -> Iterator[str]:
    """The data files, and folders of images, of this machine that a config names."""
    for value in (config.data.train, config.data.validation, config.data.test):
        for source in read_sources(value) if isinstance(value, str | list) and value else ():
            if kind_of(local(source.source)) in (FILE, FOLDER):
                yield source.source


def _digest(path: Path) -> str:
    """Of a file's content; of a folder, names, sizes and times of the files in it, since there may be millions."""
    if kind_of(path) == FILE:
        return digest(path)
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if kind_of(file) == FILE:
            known = file.stat()
            place = f"{file.relative_to(path)} {known.st_size} {int(known.st_mtime)}\n"
            found.update(place.encode(errors="surrogateescape"))
    return found.hexdigest()
