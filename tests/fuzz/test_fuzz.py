"""Configs, run folders and adapter folders with something wrong in them: exit code 0 or 2, one line, no traceback.

Damaged data files are in tests/tasks/test_damaged_data.py. RANDLORA_FUZZ_EXAMPLES sets how many cases each test tries.
"""

import contextlib
import copy
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import peft
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from networks import Net
from randlora import RandLoraConfig
from randlora.cli import main
from randlora.training import Record
from randlora.training.run.folder import as_dict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

FUZZED = settings(
    max_examples=int(os.environ.get("RANDLORA_FUZZ_EXAMPLES", "40")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, 1e300, float("inf"), float("nan")])
    | st.sampled_from(
        ["", "auto", "RANDLORA", "LORA", "uniform", "all-linear", "*", "[", "\x00", "é\x1b[31m", "a" * 300]
    )
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
PIECES = st.binary(max_size=6) | st.sampled_from([b"{", b"]" * 3, b"\xff\xfe", b"&a [*a]", b"[" * 3000, b"1e999"])
KEYS = st.sampled_from(["seed", "method.r", "method.bases", "data.shots", "method.options.x", "model"])


def places(content, path=()):
    """Paths of all keys and list entries below a JSON value."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield (*path, key)
            yield from places(value, (*path, key))


@st.composite
def changed(draw, content):
    """The content with up to three values replaced, removed or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(content))
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        parent = content
        for step in path:
            parent = parent[step]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if what == "replace":
            parent[key] = draw(VALUES)
        elif what == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = draw(VALUES)
    return content


@st.composite
def damaged(draw, content):
    """Bytes with a piece cut out, put in, or repeated."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 8, 10**6]))
        content[start : start + length] = draw(PIECES)
    return bytes(content)


def text_of(content, kind):
    dumped = yaml.safe_dump(content, allow_unicode=True) if kind == "yaml" else json.dumps(content)
    return dumped.encode("utf-8", errors="surrogatepass")


def file_content(content, kind):
    """A file that holds the content with values changed, or bytes."""
    return changed(content).map(lambda new: text_of(new, kind)) | damaged(text_of(content, kind))


def check(*words):
    """Run the tool; it ends well, or with exit code 2 and one line that says why."""
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit_:
            code = exit_.code
    said = [line for line in errors.getvalue().splitlines() if line.startswith("randlora")]
    assert code in (0, 2), errors.getvalue()
    assert len(said) == (code == 2), errors.getvalue()
    assert "Traceback" not in errors.getvalue()
    return code


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """A finished text run and its config, with data and model beside it."""
    folder = tmp_path_factory.mktemp("fuzz")
    lines = ["text,label", *(f"{'money' if row % 2 else 'card'} please,{'ab'[row % 2]}" for row in range(12))]
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = as_dict_of(request.getfixturevalue("bert"), folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert check("train", folder / "config.yaml") == 0
    return folder


def as_dict_of(model, folder):
    from randlora.training import MethodConfig, OptimizationConfig, TextData, TrainConfig

    optimization = OptimizationConfig(max_steps=2, batch_size=4, eval_batch_size=8, precision="fp32", device="cpu")
    data = TextData(train=str(folder / "train.csv"), test=str(folder / "test.csv"), max_length=8)
    return as_dict(
        TrainConfig(
            model=str(model), output=str(folder / "run"), method=MethodConfig(r=4), data=data, optimization=optimization
        )
    )


@given(data=st.data())
@FUZZED
def test_configs(data, finished, monkeypatch):
    record = Record.load(finished / "run")
    monkeypatch.setattr("randlora.training.run.training_run._train", lambda *_, **__: record)
    content = yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.chdir(scratch)
        path = Path(scratch) / "config.yaml"
        path.write_bytes(data.draw(file_content({**content, "output": "run"}, "yaml")))
        key = data.draw(KEYS)
        value = data.draw(st.text(max_size=6) | st.sampled_from(["010", "1:30", "[", "null", "-1", "1e5"]))
        check("train", path, *([f"--{key}={value}"] if data.draw(st.booleans()) else []))


@given(data=st.data())
@FUZZED
def test_run_folders(data, finished):
    with tempfile.TemporaryDirectory() as scratch:
        run = shutil.copytree(finished / "run", Path(scratch) / "run")
        name = data.draw(st.sampled_from(["record.json", "config.yaml", "adapter/adapter_config.json"]))
        kind = "yaml" if name.endswith("yaml") else "json"
        content = yaml.safe_load((run / name).read_text(encoding="utf-8"))
        (run / name).write_bytes(data.draw(file_content(content, kind)))
        command = data.draw(st.sampled_from(["evaluate", "merge", "inspect", "train"]))
        words = {"merge": ["--output", Path(scratch) / "out"], "train": ["--output", run]}.get(command, [])
        check(command, finished / "config.yaml" if command == "train" else run, *words)


@given(data=st.data())
@FUZZED
def test_adapter_folders(data, peft_adapter):
    with tempfile.TemporaryDirectory() as scratch:
        folder = shutil.copytree(peft_adapter, Path(scratch) / "adapter")
        name = data.draw(st.sampled_from(["adapter_config.json", "adapter_config.json", "adapter_model.safetensors"]))
        content = (folder / name).read_bytes()
        if name.endswith("json"):
            (folder / name).write_bytes(data.draw(file_content(json.loads(content), "json")))
        else:
            (folder / name).write_bytes(data.draw(damaged(content)))
        check("inspect", folder)
        check("convert", folder, "--output", Path(scratch) / "out")


@pytest.fixture(scope="module")
def peft_adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    config = RandLoraConfig(r=4, bases="peft", target_modules=["a", "b", "c"])
    peft.get_peft_model(Net(), config).save_pretrained(folder)
    return folder
