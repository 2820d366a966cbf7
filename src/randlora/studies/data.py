"""What is wrong with a suite's data, all of it, before any run is begun; no model is loaded, no hub asked."""

from collections.abc import Iterator

from randlora.errors import RandLoraError
from randlora.studies.inputs import at_known_commits, sources_of
from randlora.studies.scores import score_faults
from randlora.studies.study import Study
from randlora.tasks import TASKS
from randlora.tasks.bars import progress_bar
from randlora.tasks.hub import cache_alone, is_cached
from randlora.tasks.language.mixture import Source
from randlora.tasks.paths import NOTHING, kind_of, local
from randlora.tasks.rows import is_local
from randlora.training.config import TrainConfig


def data_faults(study: Study, *, elsewhere: bool = False) -> list[str]:
    """What a run would refuse of the data of every task that is not finished, a line each.

    Of the data sets of the hub those are looked at that are in this machine's cache.

    Args:
        study: The study, which need not be begun.
        elsewhere: Whether files that are not here may be on the machine of the runs; else they are missing.

    Raises:
        OutputError: What the study has written is damaged.
    """
    configs = {}
    for entry in study.progress():
        if not entry.is_over:
            config = entry.cell.config
            configs[entry.cell.task, config.task, repr(config.data)] = config, entry.cell.seeds[0]
    found = dict[str, None]()
    with progress_bar("data", "task", total=len(configs), leave=False) as bar, cache_alone():
        for (name, *_), (config, seed) in configs.items():
            found |= dict.fromkeys(f"{name}: {fault}" for fault in _faults(study, config, seed, elsewhere))
            bar.update()
    if configs:
        found |= dict.fromkeys(score_faults(study.suite.score, elsewhere=elsewhere))
    return list(found)


def _faults(study: Study, config: TrainConfig, seed: int, elsewhere: bool) -> Iterator[str]:
    task = TASKS[config.task]
    try:
        if elsewhere and any(map(_is_missing, sources_of(config.data))):
            return
        task.check(config.data)
        data = at_known_commits(study, config).data
        subset = getattr(data, "subset", None)
        if all(
            is_local(source.source) or is_cached(source.source, source.subset or subset) for source in sources_of(data)
        ):
            yield from task(data, seed=seed).faults()
    except RandLoraError as error:
        yield str(error)


def _is_missing(source: Source) -> bool:
    return is_local(source.source) and kind_of(local(source.source)) == NOTHING
