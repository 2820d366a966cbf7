"""A run's folder in the hands of others: changed data, a second run, links, what a kill leaves, a full disk."""

import errno
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from processes import Child
from randlora.cli import main
from randlora.errors import CheckpointError, ConfigError, OutputError, TrainingError
from randlora.files import new_folder, write_atomically, writing
from randlora.training import evaluate, train
from randlora.training.merge import merge
from randlora.training.run.folder import RunFolder

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from randlora.training.run.folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def one_step(text_config):
    text_config.optimization.max_steps = 1
    return text_config


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_finished_run_on_data_that_have_changed_is_refused(one_step, texts, name):
    record = train(one_step)
    assert train(one_step) == record
    append(texts / f"{name}.csv", f"{(texts / f'{name}.csv').read_text().splitlines()[1]}\n")
    with pytest.raises(OutputError, match=r"another (training|test) data: its content has changed"):
        train(one_step)


def test_a_column_that_is_not_used_is_no_change(one_step, texts):
    record = train(one_step)
    for name in ("train", "test"):
        lines = (texts / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        rows = [f"{line},note" if number == 0 else f"{line},{number}" for number, line in enumerate(lines)]
        (texts / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert train(one_step) == record


def test_a_run_on_a_changed_model_is_refused(one_step, bert, tmp_path):
    one_step.model = str(shutil.copytree(bert, tmp_path / "model"))
    train(one_step)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(OutputError, match="another model"):
        train(one_step)


def test_a_changed_image_is_a_change(image_config, images):
    image_config.optimization.max_steps = 1
    record = train(image_config)
    (images / "train" / "red" / "3.png").touch()
    assert train(image_config) == record
    shutil.copy(images / "train" / "green" / "1.png", images / "train" / "red" / "3.png")
    with pytest.raises(OutputError, match="another training data"):
        train(image_config)


def test_a_config_with_a_fingerprint_trains_on_nothing_else(one_step, texts, tmp_path):
    train(one_step)
    content = yaml.safe_load((Path(one_step.output) / "config.yaml").read_text(encoding="utf-8"))
    assert set(content["fingerprint"]) == {"training data", "test data", "model", "architecture"}
    again = replace(one_step, fingerprint=content["fingerprint"], output=str(tmp_path / "again"))
    train(again)
    append(texts / "train.csv", f"{(texts / 'train.csv').read_text().splitlines()[1]}\n")
    with pytest.raises(ConfigError, match="fingerprint of the training data"):
        train(replace(again, output=str(tmp_path / "third")))


def test_of_two_runs_in_one_folder_the_second_is_refused(one_step, tmp_path):
    holder = Child(HOLD, [one_step.output], folder=tmp_path)
    try:
        while holder.output != "locked\n":
            assert holder.process.is_alive(), holder.errors
            time.sleep(0.01)
        with pytest.raises(OutputError, match="no other run is using"):
            train(one_step)
    finally:
        holder.process.kill()
        holder.wait()
    train(one_step)  # a dead owner's lock counts for nothing
    assert {path.name for path in Path(one_step.output).iterdir()} == {"config.yaml", "record.json", "adapter"}


# A linear head over finite features has finite outputs up to rates at the end of float32.
@pytest.mark.parametrize(("method", "rate"), [("randlora", 1e30), ("lora", 1e30), ("full", 1e30), ("head", 1e38)])
def test_a_diverging_run_ends_with_one_line_and_leaves_nothing(text_config, method, rate):
    text_config.method.name = method
    text_config.optimization = replace(text_config.optimization, learning_rate=rate, epochs=1)
    with pytest.raises(TrainingError, match=r"expected a finite number, got .*lower optimization.learning_rate"):
        train(text_config)
    assert not Path(text_config.output).exists()


def test_a_diverging_run_keeps_the_checkpoints_from_before(text_config, monkeypatch):
    from randlora.training.run.trainer import RunTrainer

    compute = RunTrainer.compute_loss
    text_config.optimization = replace(text_config.optimization, save_steps=2)

    def diverging(self, model, *args, **kwargs):
        loss = compute(self, model, *args, **kwargs)
        return loss * float("nan") if model.training and self.state.global_step >= 3 else loss

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "compute_loss", diverging)
        with pytest.raises(TrainingError):
            train(text_config)
    assert RunFolder(text_config.output).checkpoint().name == "checkpoint-2"
    train(text_config)


@pytest.mark.parametrize("method", ["randlora", "lora", "full", "head"])
def test_an_adapter_that_is_not_finite_is_refused(one_step, method, tmp_path):
    one_step.method.name = method
    train(one_step)
    (path,) = (Path(one_step.output) / "adapter").glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    for use in (lambda: evaluate(one_step.output), lambda: merge(one_step.output, tmp_path / "merged")):
        with pytest.raises(CheckpointError, match="expected finite numbers"):
            use()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "place", [".adapter.tmp", "checkpoints", "adapter", ".config.yaml.tmp", "config.yaml", ".lock"]
)
def test_links_in_the_folder_are_not_written_through(one_step, tmp_path, place):
    precious = tmp_path / "precious"
    folder = Path(one_step.output)
    folder.mkdir()
    if place in (".config.yaml.tmp", ".lock"):
        precious.write_text("kept", encoding="utf-8")
    else:
        precious.mkdir()
        (precious / "file").write_text("kept", encoding="utf-8")
    (folder / place).symlink_to(precious)
    with pytest.raises(OutputError, match="remove the link"):
        train(one_step)
    assert (precious / "file" if precious.is_dir() else precious).read_text(encoding="utf-8") == "kept"
    assert (folder / place).is_symlink()


def test_a_folder_that_was_moved_holds_the_same_run(one_step, tmp_path):
    with RunFolder(one_step.output).attempt(one_step):
        pass
    moved = shutil.move(one_step.output, tmp_path / "moved")
    one_step = replace(one_step, output=str(moved))
    assert RunFolder(moved).finished(one_step) is None
    with pytest.raises(OutputError, match="a run with seed 0 instead of 7"):
        RunFolder(moved).finished(replace(one_step, seed=7))


def test_a_key_that_is_newer_than_the_run_has_its_default_there(one_step):
    folder = RunFolder(one_step.output)
    with folder.attempt(one_step):
        pass
    path = folder.path / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    del content["data"]["shots"], content["optimization"]["keep_best"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert folder.finished(one_step) is None
    with pytest.raises(OutputError, match=r"a run with data\.shots None instead of 2"):
        folder.finished(replace(one_step, data=replace(one_step.data, shots=2)))


def test_what_a_kill_leaves_before_the_config_is_written_is_no_hindrance(one_step):
    folder = Path(one_step.output)
    folder.mkdir()
    for name in (".config.yaml.tmp", ".lock"):
        (folder / name).write_text("half", encoding="utf-8")
    train(one_step)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "record.json", "adapter"}


def test_nothing_is_left_of_folders_that_were_made_for_a_run_that_fails(one_step, tmp_path):
    one_step.output, one_step.model = str(tmp_path / "a" / "b" / "c"), str(tmp_path)
    with pytest.raises(ConfigError):
        train(one_step)
    assert not (tmp_path / "a").exists()


def test_a_files_name_is_made_its_own_before_it_is_written(tmp_path):
    (tmp_path / "precious").write_text("kept", encoding="utf-8")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "kept"


def test_a_new_folder_takes_nothing_that_lies_beside_it(tmp_path):
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "file").write_text("kept", encoding="utf-8")
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert (tmp_path / ".out.tmp" / "file").read_text(encoding="utf-8") == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.tmp"}


def test_a_new_folder_behind_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link") as folder:
        (folder / "new").touch()
    assert (tmp_path / "real" / "new").exists()
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="a link to nothing"), new_folder(tmp_path / "dead"):
        pass


def test_errors_of_other_files_are_not_blamed_on_the_output(tmp_path):
    for error in (
        FileNotFoundError(errno.ENOENT, "gone", "/data/x.png"),
        PermissionError(errno.EACCES, "no", str(tmp_path / "run/data.csv")),  # beside the output
        OSError(errno.EIO, "read"),
        RuntimeError("x"),
    ):
        with pytest.raises(type(error)) as caught, writing(tmp_path / "run" / "out"):
            raise error
        assert caught.value is error
    for error in (
        OSError(errno.ENOSPC, "No space left"),
        PermissionError(errno.EACCES, "no", str(tmp_path / "run/out/a")),
        PermissionError(errno.EACCES, "no", str(tmp_path / "run")),
        OSError(errno.EIO, "no", str(tmp_path / "run/.out.0a.tmp/a")),
    ):
        with pytest.raises(OutputError, match="can be written"), writing(tmp_path / "run" / "out"):
            raise error


def test_merging_passes_over_what_is_no_file_around_the_base_model(one_step, bert, tmp_path):
    model = shutil.copytree(bert, tmp_path / "model")
    (model / "tokenizer_old").mkdir()
    (model / "tokenizer_link").symlink_to(tmp_path / "nothing")
    (model / "tokenizer_folder").symlink_to(tmp_path)
    one_step.model = str(model)
    train(one_step)
    merge(one_step.output, tmp_path / "merged")
    assert not [path for path in (tmp_path / "merged").iterdir() if not path.is_file()]
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


@pytest.mark.parametrize("write", ["merge", "convert"])
def test_a_full_disk_while_a_folder_is_made(one_step, tmp_path, write):
    train(one_step)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    words = {"merge": ["merge"], "convert": ["convert", "--to", "lora", "--rank", "2"]}[write]
    try:
        assert main([*words, one_step.output, "--output", str(tmp_path / "out")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))]
