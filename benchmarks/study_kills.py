"""A study that is killed all the time ends with the table of one that was left alone.

    python benchmarks/study_kills.py --folder /tmp/kills

One hundred cells are worked by three processes. At random moments one of these is killed (SIGKILL) and another takes
its place; then the study begins anew on a disk that is too small, which gets room once all workers have given up (a
tmpfs, which takes root). The runs take no time (`tests/study_stand_in.py`); what is tried is all around them: queue,
leases, records. The tables are compared by bytes. It prints how long each took, and exits with 1 where a table differs
or a worker ends by itself with an error. A worker that is killed while it writes to the journal, as here it is far more
often than with runs that take minutes, holds up the others for half a minute.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from randlora.errors import OutputError
from randlora.report.study import study_in_json
from randlora.studies.study import Study
from randlora.studies.table import study_table
from randlora.studies.worker import work
from study_stand_in import suite, train, trained_times

TASKS = 25
WORKERS = 3
KIB = 1024
SMALL, LARGE = 512 * KIB, 64 * KIB * KIB
GAVE_UP = 2
PROCESSES: Any = multiprocessing.get_context("fork")


def hundred_cells() -> Any:
    """Twenty-five tasks and four methods, three rates each and two seeds."""
    tasks = {f"task {number}": {"data.label_column": "x" * (1 + number)} for number in range(TASKS)}
    methods = {
        "lora": {"name": "lora"},
        "randlora": {"name": "randlora"},
        "randlora r=8": {"name": "randlora", "r": 8},
        "full": {"name": "full", "learning_rates": [1e-4, 3e-4, 1e-3]},
    }
    return suite(name="kills", tasks=tasks, methods=methods)


def _run(config: Any, *, score_test: bool) -> None:
    time.sleep(0.05)
    train(config, score_test=score_test)


def _worker(folder: Path) -> None:
    sys.stderr = (folder.parent / "workers.log").open("a", encoding="utf-8")
    try:
        work(Study(hundred_cells(), folder, begin=True), run=_run, poll=0.05)
    except OutputError as error:  # the command line says it in a line and exits with 2
        print(f"  worker {os.getpid()}: {error}", flush=True)
        sys.exit(GAVE_UP)


def _started(folder: Path) -> Any:
    process = PROCESSES.Process(target=_worker, args=(folder,))
    process.start()
    return process


def killed(folder: Path, kills: int, draw: random.Random) -> list[int]:
    """Work a study while its workers are killed; their exit codes at the end."""
    workers = [_started(folder) for _ in range(WORKERS)]
    for number in range(kills):
        time.sleep(draw.uniform(0.5, 5.0))
        victim = workers.pop(draw.randrange(WORKERS))
        alive = victim.is_alive()
        if alive:
            os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        workers.append(_started(folder))
        print(f"  kill {number + 1}{'' if alive else ', of one that was done'}", flush=True)
    return _ended(workers)


def on_a_full_disk(folder: Path) -> list[int]:
    """Work a study on a disk that fills, and go on when it has room; exit codes before and behind that."""
    folder.mkdir(parents=True)
    _mount(folder, f"size={SMALL}")
    try:
        first = _ended([_started(folder) for _ in range(WORKERS)])
        _mount(folder, f"remount,size={LARGE}")
        again = _ended([_started(folder) for _ in range(WORKERS)])
        print(f"  exit codes {first} without room, {again} with it", flush=True)
        _check(folder, "a full disk")
        return [0 if code in (0, GAVE_UP) else code for code in first] + again
    finally:
        subprocess.run(["umount", str(folder)], check=False)  # noqa: S603, S607 - a folder of ours


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)  # noqa: S603, S607


def _ended(workers: list[Any]) -> list[int]:
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


def _table(folder: Path) -> str:
    return study_in_json(study_table(Study(hundred_cells(), folder)))


EXPECTED: dict[str, str] = {}


def _check(folder: Path, what: str) -> None:
    same = _table(folder) == EXPECTED["table"]
    print(f"  table after {what}: {'the same bytes' if same else 'DIFFERENT'}", flush=True)
    EXPECTED[what] = "same" if same else "different"


def _timed(what: str, call: Callable[[], Any]) -> Any:
    began = time.monotonic()
    found = call()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
    return found


def main() -> int:
    """Run all three, and say whether they end alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True)
    codes = _timed("left alone", lambda: _ended([_started(folder / "alone") for _ in range(WORKERS)]))
    EXPECTED["table"] = _table(folder / "alone")
    draw = random.Random(arguments.seed)  # noqa: S311 - no secret
    codes += _timed("killed", lambda: killed(folder / "killed", arguments.kills, draw))
    _check(folder / "killed", f"{arguments.kills} kills")
    alone, again = (sum(trained_times(folder / name).values()) for name in ("alone", "killed"))
    print(f"  {alone} trainings alone, {again} with the killed ones'", flush=True)
    if os.geteuid() == 0:
        codes += _timed("on a full disk", lambda: on_a_full_disk(folder / "full"))
    return 1 if any(codes) or "different" in EXPECTED.values() else 0


if __name__ == "__main__":
    sys.exit(main())
