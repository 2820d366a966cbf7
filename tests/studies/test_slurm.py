import sys

import pytest
import submitit

from randlora.cli import main
from randlora.errors import ConfigError
from randlora.studies import slurm
from randlora.studies.schema import in_yaml
from randlora.studies.slurm import submit_workers


@pytest.mark.slow
def test_workers_are_submitted_with_what_they_run(tmp_path):
    command = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"]
    numbers = submit_workers(command, tmp_path / "slurm", 2, cluster="local", timeout_min=1, name=None)
    assert len(set(numbers)) == 2
    for number in numbers:
        submitit.LocalJob(tmp_path / "slurm", number).result()
    assert (tmp_path / "ran").read_text() == "xx"


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="--slurm: expected SLURM on this machine"):
        submit_workers(["true"], tmp_path, 1)


def test_the_command_submits_workers_of_the_studys_folder(tmp_path, monkeypatch, capsys):
    from study_stand_in import suite

    (tmp_path / "suite.yaml").write_text(in_yaml(suite()), encoding="utf-8")
    given = {}

    def submit(command, folder, count, **wanted):
        given.update(wanted, command=command, folder=folder, count=count)
        return ["7", "8"]

    monkeypatch.setattr(slurm, "submit_workers", submit)
    words = ["--slurm", "2", "--partition", "gpu", "--gpus", "1", "--output", str(tmp_path / "s")]
    assert main(["study", "work", str(tmp_path / "suite.yaml"), *words, "--retry-failed"]) == 0
    folder = (tmp_path / "s").resolve()
    assert given.pop("command") == [
        *(sys.executable, "-m", "randlora", "study", "work", str(folder)),
        "--retry-failed",
    ]
    assert given == {
        "folder": folder / "slurm",
        "count": 2,
        "name": "small",
        "slurm_partition": "gpu",
        "slurm_gpus_per_node": 1,
        "slurm_cpus_per_task": None,
        "timeout_min": None,
    }
    assert "submitted 2 workers: 7, 8" in capsys.readouterr().out
