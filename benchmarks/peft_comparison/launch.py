"""Run this package's adapters in PEFT's own comparison, `method_comparison/MetaMathQA` of its repository.

    python benchmarks/peft_comparison/launch.py PEFT_CHECKOUT llama-3.2-3B-structured-as-rank32 -v

The experiment's folder is copied to `experiments/randlora-fullrank/` of the comparison; its `run.py` then runs in this
process, after `randlora` has told PEFT of its types: by itself it would not know what to make of our config. Whatever
follows the experiment's name is handed to `run.py`.
"""

import argparse
import os
import runpy
import shutil
import sys
from pathlib import Path

import randlora  # noqa: F401 - registers the types with PEFT, before run.py reads a config

EXPERIMENTS = Path(__file__).parent / "experiments"
METHOD = "randlora-fullrank"  # `randlora` is the folder of PEFT's own method


def install(comparison: Path, name: str) -> Path:
    """Copy an experiment's folder into the comparison.

    Args:
        comparison: The folder of run.py.
        name: A folder of `experiments` beside this file.

    Returns:
        Its path as run.py wants it: relative, experiments/METHOD/NAME.

    Raises:
        SystemExit: There is no run.py.
    """
    if not (comparison / "run.py").is_file():
        raise SystemExit(f"{comparison}: no run.py here; give the folder of a checkout of PEFT")
    relative = Path("experiments") / METHOD / name
    shutil.copytree(EXPERIMENTS / name, comparison / relative, dirs_exist_ok=True)
    return relative


def main(arguments: list[str] | None = None) -> None:
    """Install the experiment and become run.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of PEFT, installed from there (pip install -e)")
    parser.add_argument("experiment", choices=sorted(folder.name for folder in EXPERIMENTS.iterdir()))
    chosen, passed_on = parser.parse_known_args(arguments)
    comparison = (chosen.checkout / "method_comparison" / "MetaMathQA").resolve()
    experiment = install(comparison, chosen.experiment)
    os.chdir(comparison)
    sys.path.insert(0, str(comparison))  # run.py imports the modules beside it
    sys.argv = ["run.py", *passed_on, str(experiment)]
    runpy.run_path("run.py", run_name="__main__")


if __name__ == "__main__":
    main()
