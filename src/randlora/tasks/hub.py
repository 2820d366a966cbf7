"""Data sets of the hub: `NAME`, `NAME@REVISION`, `NAME:SPLIT` or `NAME@REVISION:SPLIT`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from datasets.packaged_modules.cache.cache import Cache

from randlora.errors import DataError

_WITH_SPLIT = re.compile(r"(?P<name>[^:]+):(?P<split>[^:]+)")


def named_split(source: str, split: str) -> tuple[str, str]:
    """The name of a hub data set, with its revision, and its split.

    Args:
        source: As in a config; not of this machine.
        split: The split where the name has none.

    Example:
        >>> named_split("imdb:test", "train"), named_split("imdb@main", "train")
        (('imdb', 'test'), ('imdb@main', 'train'))
    """
    named = _WITH_SPLIT.fullmatch(source)
    return (named["name"], named["split"]) if named else (source, split)


@contextmanager
def cache_alone() -> Iterator[None]:
    """Ask no hub: data sets are those of this machine's cache."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def is_cached(source: str, subset: str | None) -> bool:
    """Whether a data set is in this machine's cache, at the revision that is asked for.

    Args:
        source: The data set, with or without a split.
        subset: Its configuration, where it has several.
    """
    try:
        with cache_alone():
            commit_of(named_split(source, "")[0], subset)
    except DataError:
        return False
    return True


def hub_rows(source: str, split: str, subset: str | None) -> datasets.Dataset:
    """Read a split.

    Args:
        source: The data set; a split in it wins.
        split: The split where the name has none.
        subset: The data set's configuration, where it has several.

    Raises:
        DataError: It cannot be had, or not at the revision that is asked for.
    """
    name, split = named_split(source, split)
    if "@" in name:
        commit_of(name, subset)  # without the hub, `datasets` takes whatever is in its cache
    name, _, revision = name.partition("@")
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision or None)
    # `datasets` wraps whatever its parsers and the network raise in several unrelated classes.
    except Exception as error:
        expected = f"a file, or a hub data set with a split '{split}'"
        raise _cannot_be_had(source, expected, error) from error


def commit_of(name: str, subset: str | None) -> str:
    """The commit at which a data set is read now: the hub's or, without the hub, that of this machine's cache.

    Args:
        name: `NAME`, for its newest commit, or `NAME@REVISION`.
        subset: The data set's configuration, where it has several.

    Raises:
        DataError: It cannot be had, or not at the revision that is asked for.
    """
    name, at, revision = name.partition("@")
    if at and not revision:
        raise DataError(f"{name}@", expected="a commit, a branch or a tag after the @", got="nothing")
    try:
        builder = datasets.load_dataset_builder(name, subset, revision=revision or None)
    except Exception as error:
        at_revision = f" with a revision {revision}" if revision else ""
        raise _cannot_be_had(name, f"a file, or a hub data set{at_revision}", error) from error
    found = str(builder.hash)
    if revision and isinstance(builder, Cache) and found != revision:
        hint = "the hub cannot be reached; a commit that is in the cache has to be named whole"
        got = f"{found}, the newest in this machine's cache"
        raise DataError(name, expected=f"the revision {revision}", got=got, hint=hint)
    return found


def at_commit(source: str, commit: str) -> str:
    """The data set at a commit in place of its revision.

    Example:
        >>> at_commit("imdb@main:test", "0123")
        'imdb@0123:test'
    """
    name, colon, split = source.partition(":")
    return f"{name.partition('@')[0]}@{commit}{colon}{split}"


def _cannot_be_had(source: str, expected: str, error: Exception) -> DataError:
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or [""]
    hint = "check the name, the subset, the split and the connection; NAME:SPLIT names a split"
    return DataError(source, expected=expected, got=f"{type(cause).__name__}: {lines[0]}", hint=hint)
