"""Commands for language models, from the outside: words in, exit code, output and files out."""

import io
import json
import shutil
import socket
from dataclasses import replace

import pytest
import yaml

from randlora.cli import main
from randlora.cli.commands import needs
from randlora.training import train
from randlora.training.language.engines import ENGINES
from randlora.training.run.folder import as_dict
from refusals import refused


@pytest.fixture
def typed(monkeypatch):
    """Give standard input these lines."""

    def put(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    put("")
    return put


@pytest.fixture
def damaged_suite(tmp_path):
    """A commonsense folder with one task, whose answer is none."""
    (tmp_path / "suite" / "boolq").mkdir(parents=True)
    content = json.dumps([{"instruction": "Is it?", "answer": "maybe"}])
    (tmp_path / "suite" / "boolq" / "test.json").write_text(content, encoding="utf-8")
    return tmp_path / "suite"


def test_generate(spoken_run, capsys, tmp_path, typed):
    words = ["generate", str(spoken_run), "--max-new-tokens", "12"]
    assert main([*words, "abc"]) == 0
    answer = capsys.readouterr().out.removesuffix("\n")
    assert answer.strip()

    assert main([*words, "abc", "dda", "--batch-size", "1"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["prompt"] for row in rows] == ["abc", "dda"]
    assert rows[0]["completion"] == answer
    assert "2/2" in captured.err  # a bar

    typed("abc\ndda\n")
    assert main([*words, "--output", str(tmp_path / "out.jsonl")]) == 0
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    captured = capsys.readouterr()
    assert "2 answers written" in captured.out
    assert captured.err == ""

    (tmp_path / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "abc"}]}\n')
    assert main([*words, "--file", str(tmp_path / "prompts.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)["completion"] == answer


def test_chat(spoken_run, capsys, typed):
    typed("abc\n/reset\nabc\n/exit\nnever\n")
    assert main(["chat", str(spoken_run), "--max-new-tokens", "12"]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first == second
    assert first.strip()
    assert captured.err == ""


def test_data(sft_config, text_config, capsys, tmp_path):
    for name, config in (("sft", sft_config), ("text", text_config)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    assert main(["data", str(tmp_path / "sft.yaml"), "--examples", "1", "--data.max_length", "38"]) == 0
    out = capsys.readouterr().out
    assert "train: 40 examples" in out
    assert "40 cut" in out
    assert "⟦" in out
    assert main(["data", str(tmp_path / "text.yaml")]) == 0
    out = capsys.readouterr().out
    assert "lost_card" in out
    assert "example 1 of 48" in out
    assert "absent" in refused(capsys, "data", tmp_path / "sft.yaml", "--data.train", "absent.jsonl")
    assert "--examples" in refused(capsys, "data", tmp_path / "sft.yaml", "--examples", "-1")
    assert "did you mean" in refused(capsys, "data", tmp_path / "sft.yaml", "--data.trian", "x")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "RUN"], "prompts: expected one or more"),
        (["generate", "RUN", "a", "--file", "p.txt"], "both"),
        (["generate", "RUN", "--file", "p.txt"], "p.txt"),
        (["generate", "RUN", "a", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["generate", "RUN", "a", "--temperature", "-1"], "--temperature"),
        (["generate", "RUN", "a", "--temperature", "nan"], "--temperature"),
        (["generate", "RUN", "a", "--temperature", "1e-40"], "--temperature"),
        (["generate", "RUN", "a", "--seed", "9" * 20], "--seed"),
        (["generate", "RUN", "a", "--top-p", "0.5"], "temperature above 0"),
        (["generate", "RUN", "a", "--top-p", "2"], "--top-p"),
        (["generate", "RUN", "a", "--batch-size", "0"], "--batch-size"),
        (["generate", "RUN", "a", "--output", "taken"], "taken"),
        (["generate", "RUN", "a", "--output", "no/where"], "no/where"),
        (["generate", "RUN", "a", "--raw", "--system", "be"], "--system"),
        (["generate", "RUN", "a" * 300], "prompt 1"),
        (["generate", "RUN", "a\udcff"], "prompt 1: expected a text, got one with half of a surrogate pair"),
        (["generate", "RUN", "a\udcff", "--raw"], "prompt 1: expected a text, got one with half of a surrogate pair"),
        (["generate", "RUN", "a", "--model", "./absent"], "absent"),
        (["generate", "./absent", "a"], "absent"),
        (["generate"], "source"),
        (["chat", "./absent"], "absent"),
        (["chat", "RUN", "--system"], "--system"),
        (["chat", "RUN", "--temprature", "1"], "--temprature"),
        (["serve", "RUN", "--port", "0"], "--port"),
        (["serve", "RUN", "--port", "IN USE"], "free port"),
        (["serve", "RUN", "--host", "no such host"], "--host"),
        (["serve", "./absent"], "absent"),
        (["serve", "RUN", "--engine", "mine"], "mine"),
        (["serve", "RUN", "--engine", "vllm"], "pip install vllm"),
        (["evaluate", "RUN", "--tasks", "boolq"], "--tasks: expected --commonsense with it"),
        (["evaluate", "RUN", "--limit", "3"], "--limit: expected --commonsense or --e2e or --harness with it"),
        (["evaluate", "RUN", "--commonsense", ".", "--harness-tasks", "."], "--harness-tasks: expected --harness"),
        (["evaluate", "RUN", "--commonsense", ".", "--harness", "piqa"], "one suite at a time"),
        (["evaluate", "RUN", "--commonsense", ".", "--split", "test"], "--split"),
        (["evaluate", "RUN", "--commonsense", "."], "TASK/test.json"),
        (["evaluate", "RUN", "--commonsense", ".", "--limit", "0"], "--limit: expected 1 or more"),
        (["evaluate", "RUN", "--commonsense", ".", "--batch-size", "0"], "--batch-size: expected 1 or more"),
        (["evaluate", "RUN", "--commonsense", ".", "--data.test", "x"], "--data.test"),
        (["evaluate", "RUN", "--commonsense", ".", "--model"], "--model"),
        (["evaluate", "RUN", "--commonsense", ".", "--protocol", "mine"], "mine"),
        (["evaluate", "RUN", "--commonsense", "SUITE", "--tasks", "bolq"], "did you mean boolq"),
        (
            ["evaluate", "RUN", "--commonsense", "SUITE", "--tasks", "piqa"],
            "piqa/test.json: expected the task's test data",
        ),
        (["evaluate", "RUN", "--commonsense", "SUITE"], "row 0, column 'answer': expected one of true, false"),
        (["evaluate", "./absent", "--commonsense", "SUITE"], "absent"),
        (["evaluate", "RUN", "--e2e", "absent"], "absent: expected a data file, got nothing"),
        (["evaluate", "RUN", "--e2e", "taken"], "expected a file ending in .csv"),
        (["evaluate", "RUN", "--e2e", "taken", "--protocol", "fixed"], "--protocol: expected --commonsense with it"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(
    spoken_run, damaged_suite, capsys, monkeypatch, tmp_path, typed, words, message
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(here))
    (here / "taken").touch()
    installed = replace(ENGINES["transformers"], packages=())  # what is wrong is to be found without it too
    monkeypatch.setitem(ENGINES, "transformers", installed)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        known = {"RUN": str(spoken_run), "SUITE": str(damaged_suite), "IN USE": str(listener.getsockname()[1])}
        assert message in refused(capsys, *(known.get(word, word) for word in words))
    assert [path.name for path in here.iterdir()] == ["taken"]


def test_suites_are_for_runs_of_language_models_and_the_harness_has_to_be_there(
    text_config, spoken_run, damaged_suite, capsys, monkeypatch
):
    text_config.optimization.max_steps = 1
    train(text_config)
    found = refused(capsys, "evaluate", text_config.output, "--commonsense", damaged_suite)
    assert "expected a run that trained a language model, got one of text-classification" in found
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None if name == "lm_eval" else name)
    found = refused(capsys, "evaluate", spoken_run, "--harness", "piqa")
    assert "package 'lm_eval': expected to be installed (pip install 'randlora[harness]')" in found


@pytest.mark.parametrize("name", ["generate", "chat", "serve", "data"])
def test_a_run_folder_cannot_ask_for_its_models_code_to_run(
    spoken_run, llama, capsys, monkeypatch, tmp_path, typed, name
):
    monkeypatch.setitem(ENGINES, "transformers", replace(ENGINES["transformers"], packages=()))
    run, model, marker = tmp_path / "run", tmp_path / "model", tmp_path / "ran"
    shutil.copytree(spoken_run, run)
    shutil.copytree(llama, model)
    (model / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n", encoding="utf-8")
    auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    content = {"model_type": "of_its_own", "architectures": ["M"], "auto_map": auto}
    (model / "config.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config |= {"model": str(model), "trust_remote_code": True}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (run / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if name == "data":  # tokenizers without code of their own are read all the same
        main([name, str(run / "train.yaml")])
    else:
        refused(capsys, name, run, *(["a"] if name == "generate" else []))
    assert not marker.exists()
