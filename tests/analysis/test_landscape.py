"""The plane, the weights put into it and taken back, and the losses of whole runs."""

import json
from dataclasses import replace

import filelock
import pytest
import torch
from safetensors.torch import save_file

from randlora.analysis.corners import Corners
from randlora.analysis.folder import output_folder
from randlora.analysis.landscape import analyze_landscape
from randlora.analysis.plane import PAPER, orthonormal
from randlora.errors import ConfigError, OutputError
from randlora.training import MethodConfig, evaluate, train


def test_the_papers_plane():
    for x, y in [(0.3, -0.2), (1.4, 1.1), (0.0, 1.0)]:
        assert PAPER.weights(x, y) == pytest.approx((1 - y / 2 - x, y, x - y / 2))
    assert [PAPER.weights(*corner) for corner in PAPER.corners] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_the_orthonormal_plane_keeps_distances():
    models = torch.randn(3, 50, dtype=torch.float64)
    lines = models[1:] - models[0]
    plane = orthonormal(lines @ lines.T)
    unit = lines[1].norm()

    def at(x, y):
        return torch.tensor(plane.weights(x, y), dtype=torch.float64) @ models

    for corner, model in zip(plane.corners, models, strict=True):
        torch.testing.assert_close(at(*corner), model)
    for (x0, y0), (x1, y1) in [((0, 0), (0.3, 0.7)), ((-1, 2), (0.5, 0.5))]:
        distance = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        assert float((at(x0, y0) - at(x1, y1)).norm() / unit) == pytest.approx(distance)


def test_models_on_a_line_span_no_plane():
    line = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    with pytest.raises(ConfigError, match="on a line"):
        orthonormal(line @ line.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_taken_back_to_the_bit(dtype, tmp_path):
    def net():
        return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)).to(dtype)

    model, trained = net(), [net() for _ in range(3)]
    for number, other in enumerate(trained):
        other[1].load_state_dict(model[1].state_dict())  # frozen
        save_file(other.state_dict(), tmp_path / f"{number}.safetensors")
    before = {name: part.clone() for name, part in model.state_dict().items()}
    corners = Corners(model, [tmp_path / f"{number}.safetensors" for number in range(3)], tmp_path)
    assert corners.names == ["0.weight", "0.bias"]
    with corners.borrowed():
        for number, other in enumerate(trained):
            corners.set([float(number == place) for place in range(3)])
            assert all(torch.equal(part, other.state_dict()[name]) for name, part in model.state_dict().items())
        corners.set((0.25, -0.5, 1.25))
        literal = sum(w * o[0].weight.double() for w, o in zip((0.25, -0.5, 1.25), trained, strict=True))
        torch.testing.assert_close(model[0].weight, literal.to(dtype))
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    lines = torch.stack([(o[0].weight.double() - trained[0][0].weight.double()).flatten() for o in trained[1:]])
    biases = torch.stack([o[0].bias.double() - trained[0][0].bias.double() for o in trained[1:]])
    torch.testing.assert_close(corners.products(), lines @ lines.T + biases @ biases.T)


def _three(config, tmp_path):
    methods = {"randlora": MethodConfig(r=4), "lora": MethodConfig(name="lora", r=2), "full": MethodConfig(name="full")}
    for name, method in methods.items():
        train(replace(config, method=method, output=str(tmp_path / name), seed=len(name)))
    return [tmp_path / name for name in methods]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["image_config", "sft_config"])
def test_corners_are_the_runs_and_the_work_goes_on(task, request, tmp_path, monkeypatch):
    runs = _three(request.getfixturevalue(task), tmp_path)
    folder = tmp_path / "seen"
    asked = []
    ordinary = Corners.set

    def stopping(self, weights):
        asked.append(weights)
        if len(asked) == 20:
            raise KeyboardInterrupt
        ordinary(self, weights)

    monkeypatch.setattr(Corners, "set", stopping)
    with pytest.raises(KeyboardInterrupt):
        analyze_landscape(runs, folder, grid=3, examples=None)
    assert len(json.loads((folder / "landscape.partial.json").read_text())["losses"]) == 19
    result = analyze_landscape(runs, folder, grid=3, examples=None)
    assert len(asked) == 20 + 39 - 19  # 30 points on the edges and 9 of the grid
    for run, corner, own in zip(runs, result.data["corner_losses"], result.data["own_losses"], strict=True):
        scored = evaluate(run)["loss"]
        assert own == pytest.approx(scored, rel=1e-6)
        assert corner == pytest.approx(scored, rel=1e-6)
    turned = analyze_landscape(runs, tmp_path / "other", grid=2, examples=None, plane="orthonormal")
    assert turned.data["corner_losses"] == pytest.approx(result.data["corner_losses"], rel=1e-9)
    for edge, other in zip(result.data["edges"], turned.data["edges"], strict=True):
        assert edge["losses"] == pytest.approx(other["losses"], rel=1e-5)
        line = [(1 - t / 10) * edge["losses"][0] + t / 10 * edge["losses"][-1] for t in range(11)]
        assert edge["barrier"] == pytest.approx(max(a - b for a, b in zip(edge["losses"], line, strict=True)))


@pytest.mark.slow
def test_runs_that_cannot_be_compared(text_config, tmp_path):
    runs = _three(text_config, tmp_path)
    with pytest.raises(ConfigError, match="expected three, got 2"):
        analyze_landscape(runs[:2], tmp_path / "out")
    with pytest.raises(ConfigError, match="twice"):
        analyze_landscape([runs[0], runs[1], runs[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_at_once_do_not_meet_in_one_folder(text_config, tmp_path):
    runs, folder = _three(text_config, tmp_path), tmp_path / "out"
    folder.mkdir()
    with filelock.FileLock(folder / ".lock"), pytest.raises(OutputError, match="no other landscape is using"):
        analyze_landscape(runs, folder, grid=2, examples=2)
    (folder / ".lock").touch()  # as one that was killed leaves it
    analyze_landscape(runs, folder, grid=2, examples=2)
    assert [path.name for path in folder.iterdir()] == ["landscape.partial.json"]
    assert output_folder(folder) == folder


def test_what_a_killed_analysis_leaves_behind_is_no_other_file(tmp_path):
    for name in (".landscape.partial.json.tmp", ".theory.png.tmp"):
        (tmp_path / name).touch()
    assert output_folder(tmp_path) == tmp_path
    (tmp_path / ".notes.md.tmp").touch()
    with pytest.raises(OutputError, match=r"got one that holds \.notes\.md\.tmp"):
        output_folder(tmp_path)
