import sys

import pytest
import submitit

from randlora.cli import main
from randlora.studies import slurm
from randlora.studies.schema import in_yaml
from randlora.studies.slurm import submit_workers
from study_stand_in import suite


@pytest.mark.slow
def test_workers_are_submitted_with_what_they_run(tmp_path):
    command = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"]
    numbers = submit_workers(command, tmp_path / "slurm", 2, cluster="local", timeout_min=1, name=None)
    assert len(set(numbers)) == 2
    for number in numbers:
        submitit.LocalJob(tmp_path / "slurm", number).result()
    assert (tmp_path / "ran").read_text() == "xx"


def test_without_slurm_it_says_so_and_begins_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    (tmp_path / "suite.yaml").write_text(in_yaml(suite()), encoding="utf-8")
    words = ["--slurm", "2", "--output", str(tmp_path / "s")]
    assert main(["study", "work", str(tmp_path / "suite.yaml"), *words]) == 2
    assert "--slurm: expected SLURM on this machine" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_the_command_submits_workers_of_the_studys_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "suite.yaml").write_text(in_yaml(suite()), encoding="utf-8")
    given = {}

    def submit(command, folder, count, **wanted):
        given.update(wanted, command=command, folder=folder, count=count)
        return ["7", "8"]

    monkeypatch.setattr(slurm, "submit_workers", submit)
    monkeypatch.setattr(slurm.shutil, "which", lambda _: "/usr/bin/sbatch")
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
