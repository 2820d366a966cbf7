"""Prompts from words, files and streams."""

import pytest

from randlora.errors import ConfigError, DataError
from randlora.tasks.language import Conversation
from randlora.training.language import read_prompts

USER = {"role": "user", "content": "hi"}


def test_words_come_before_the_stream():
    assert read_prompts(["a", "b"], None, ["c"]) == ["a", "b"]
    assert read_prompts([], None, ["c d\n", "\n", "e"]) == ["c d", "e"]


def test_files(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert read_prompts([], str(tmp_path / "p.txt")) == ["one", "two"]
    lines = [
        '{"prompt": "one"}',
        '{"prompt": [{"role": "user", "content": "hi"}], "completion": "x"}',
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "t"}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"enable_thinking": false}}',
    ]
    told = [{}, {}, {"tools": [{"name": "t"}]}, {"options": {"enable_thinking": False}}]
    expected = [Conversation([USER], **words) for words in told]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_prompts([], str(tmp_path / "p.jsonl")) == ["one", *expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": 3}', "line 1, 'prompt': expected a text or a list of messages, got a number"),
        ('{"prompt": "a"}\n{"text": "b"}', "line 2: expected 'prompt' or 'messages', got 'text'"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": 1}', "line 1, column 'tools': expected a list"),
        ('{"prompt": " "}', "line 1, 'prompt'"),
        ('{"messages": [{"role": "assistant", "content": "yes"}]}', "line 1"),
        ("{", "line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, content, message):
    (tmp_path / "p.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_prompts([], str(tmp_path / "p.jsonl"))


def test_no_prompts_and_wrong_files(tmp_path):
    with pytest.raises(ConfigError, match="prompts: expected one or more"):
        read_prompts([], None, ["\n"])
    with pytest.raises(ConfigError, match="both"):
        read_prompts(["a"], "p.txt")
    with pytest.raises(DataError, match="nothing"):
        read_prompts([], str(tmp_path / "absent"))
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_prompts([], str(tmp_path / "p.txt"))
