"""Workers on a cluster, submitted through submitit."""

import io
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit

from randlora.errors import ConfigError

_LAST_SECONDS = 60
"""How long before its time limit a worker is asked to end, as `interruption` has it."""


def require_slurm() -> None:
    """Check that jobs can be submitted, before a study is begun for them.

    Raises:
        ConfigError: There is no SLURM here.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("--slurm", expected="SLURM on this machine (sbatch)", got="none", hint="run `study work`")


def submit_workers(
    command: Sequence[str], folder: Path, count: int, *, cluster: str = "slurm", **wanted: Any
) -> list[str]:
    """Submit workers as jobs.

    Args:
        command: What each runs.
        folder: Where submitit keeps scripts and logs; it must be seen by the workers.
        count: How many.
        cluster: "slurm", or "local" for processes of this machine.
        wanted: submitit's parameters of a job, such as `timeout_min`; None leaves a choice to the cluster.

    Returns:
        Numbers of the jobs.

    Raises:
        ConfigError: SLURM refuses.
    """
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
    # submitit's own signal makes it kill what it runs at once; this one it passes by, and SLURM sends it to the worker.
    executor.update_parameters(slurm_additional_parameters={"signal": f"TERM@{_LAST_SECONDS}"})
    try:
        with redirect_stderr(io.StringIO()):  # of what SLURM says the error has all
            jobs = [executor.submit(submitit.helpers.CommandFunction(list(command))) for _ in range(count)]
    except submitit.core.utils.FailedJobError as error:
        raise ConfigError("--slurm", expected="a job that SLURM takes", got=" ".join(str(error).split())) from error
    return [str(job.job_id) for job in jobs]
