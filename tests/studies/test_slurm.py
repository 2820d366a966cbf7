import sys

import pytest
import submitit

from randlora.cli import main
from randlora.errors import ConfigError
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


def test_a_worker_is_asked_to_end_before_its_limit_by_a_signal_that_submitit_leaves_it(tmp_path, monkeypatch):
    """submitit's own, SIGUSR2, makes it kill what it runs: a death, where a run could have been given back."""
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat $1 > {tmp_path}/script\necho Submitted batch job 7\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(submitit.slurm.slurm.shutil, "which", lambda _: "/usr/bin/srun")
    assert submit_workers(["true"], tmp_path / "slurm", 1, timeout_min=5) == ["7"]
    assert "#SBATCH --signal=TERM@60\n" in (tmp_path / "script").read_text()


def test_what_slurm_refuses_is_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho sbatch: error: no such partition >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(submitit.slurm.slurm.shutil, "which", lambda _: "/usr/bin/srun")
    with pytest.raises(ConfigError, match=r"--slurm: expected a job that SLURM takes, got .*no such partition"):
        submit_workers(["true"], tmp_path / "slurm", 1)
    assert capfd.readouterr().err == ""
