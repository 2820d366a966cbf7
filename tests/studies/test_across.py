"""Mean ranks over several studies: who is compared with whom, and what is left out is said."""

import csv
import io
import json

import pytest

from randlora.cli import main
from randlora.errors import ConfigError
from randlora.studies.across import ranks_across, read_table
from randlora.studies.schema import in_yaml
from randlora.studies.study import Study
from randlora.studies.worker import work
from study_stand_in import suite, train


def table(columns, *, name="a", trained=None, sections=None, higher=True):
    """A study's table of column -> method -> figure; every method trains 100 numbers unless `trained` says others."""
    cells = [
        {
            "row": f"{method} as_lora=4",
            "method": method,
            "column": column,
            "shown": shown,
            "trained": None if shown is None else (trained or {}).get(method, 100),
            "higher": higher,
            "unit": "%",
        }
        for column, figures in columns.items()
        for method, shown in figures.items()
    ]
    return {"suite": name, "cells": cells, "methods": sections or {}}


def ranks(result):
    return {row["method"]: row["rank"]["rank"] for row in result.rows}


FIRST = table({"x": {"lora": 1.0, "ours": 3.0, "full": 2.0}, "y": {"lora": 5.0, "ours": 5.0, "full": 9.0}})
SECOND = table({"x": {"lora": 0.5, "ours": 0.1, "full": 0.2}}, name="b", higher=False)


def test_every_column_of_every_study_counts_once():
    result = ranks_across({"a": FIRST, "b": SECOND})
    # a: x 3 1 2, a: y 2.5 2.5 1, and of b, where less is better, 3 1 2.
    assert ranks(result) == {"ours": 1.5, "full": pytest.approx(5 / 3), "lora": pytest.approx(8.5 / 3)}
    assert [row["method"] for row in result.rows] == ["ours", "full", "lora"]
    assert [row["first"] for row in result.rows] == [2, 1, 0]
    assert [line["column"] for line in result.more["columns"]] == ["a: x", "a: y", "b: x"]
    assert result.more["columns"][1]["methods"]["ours"]["rank"] == 2.5
    low, high = result.rows[0]["rank"]["low"], result.rows[0]["rank"]["high"]
    assert (low, high) == (1.0, 2.5)  # three times the best column, or the worst
    counted = "over 3 columns, each of which counts once"
    assert result.summary == [f"{counted}; in each, methods that train as many numbers, within 10%"]


def test_only_methods_that_train_as_many_numbers_are_compared():
    trained = {"lora": 100, "ours": 109, "full": 5000}
    result = ranks_across({"a": table({"x": {"lora": 1.0, "ours": 3.0, "full": 9.0}}, trained=trained)})
    assert ranks(result) == {"ours": 1.0, "lora": 2.0}
    assert result.more["columns"][0]["trained"] == [100, 109]
    assert "left out, with how many of the columns each lacks: full 1" in result.summary
    with pytest.raises(ConfigError, match="lora 0, ours 0"):
        ranks_across({"a": table({"x": {"lora": 1.0, "ours": 3.0}}, trained={"ours": 112})})


def test_a_column_is_there_once_for_each_count_of_numbers():
    small, large = ({"lora": 1.0, "ours": 2.0}, {"lora": 4.0, "ours": 3.0})
    cells = table({"x": small})["cells"]
    cells += [cell | {"trained": 400} for cell in table({"x": large})["cells"]]
    # At as many numbers as these, but farther from the others': the nearer of one method's cells stands for it.
    cells += [cell | {"trained": 410, "shown": 9.0} for cell in table({"x": {"lora": 0.0}})["cells"]]
    result = ranks_across({"a": {"suite": "a", "cells": cells}})
    assert [line["column"] for line in result.more["columns"]] == ["a: x, 100 trained", "a: x, 400 trained"]
    assert ranks(result) == {"lora": 1.5, "ours": 1.5}
    assert result.more["columns"][1]["methods"]["lora"]["shown"] == 4.0


def test_a_method_that_lacks_a_column_is_left_out_or_the_column_is():
    lacking = table({"x": {"lora": 1.0, "ours": 2.0}, "y": {"lora": 1.0, "ours": None}, "z": {"ours": None}}, name="b")
    result = ranks_across({"a": FIRST, "b": lacking | {"cells": lacking["cells"][:3]}}, [["lora"], ["ours"]])
    assert [line["column"] for line in result.more["columns"]] == ["a: x", "a: y", "b: x"]
    whole = ranks_across({"a": FIRST, "b": lacking})
    assert list(ranks(whole)) == ["ours", "lora"]
    assert "left out, with how many of the columns each lacks: full 1" in whole.summary
    assert "left out, as no two methods have figures at equal numbers: b: y; b: z" in whole.summary
    asked = ranks_across({"a": FIRST, "b": lacking}, [["lora"], ["full"]])
    assert ranks(asked) == {"full": 1.0, "lora": 2.0}
    assert "left out, without full: b: x" in asked.summary
    with pytest.raises(ConfigError, match=r"got none that have one in every column .*lora 2, .*other 1"):
        ranks_across({"a": FIRST, "b": table({"x": {"other": 1.0, "another": 2.0}})})


def test_a_method_may_have_two_names():
    other = table({"x": {"lora": 1.0, "structured": 2.0}}, sections={"structured": {"name": "randlora", "r": 4}})
    own = FIRST | {"methods": {"ours": {"name": "randlora", "bases": "uniform", "learning_rates": [1.0]}}}
    result = ranks_across({"a": own, "b": other}, [["ours", "structured"], ["lora"]])
    assert ranks(result) == {"ours": pytest.approx(3.5 / 3), "lora": pytest.approx(5.5 / 3)}
    assert [line["methods"]["ours"]["rank"] for line in result.more["columns"]] == [1.0, 1.5, 1.0]
    line = 'ours is {"bases": "uniform", "name": "randlora"} in a; {"name": "randlora"} in b'
    assert result.summary[-1] == line
    with pytest.raises(ConfigError, match=r"names of which a column has one, got .*lora"):
        ranks_across({"a": FIRST}, [["ours", "lora"], ["full"]])


def test_unknown_methods_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--methods: expected some of lora, ours, full, got 'loar' \(did you"):
        ranks_across({"a": FIRST}, [["loar"], ["ours"]])
    for twice in ([["lora"], ["lora"]], [["ours", "lora"], ["lora"]]):
        with pytest.raises(ConfigError, match=r"--methods: expected every name once, got lora, 2 times"):
            ranks_across({"a": FIRST}, twice)
    path = tmp_path / "t.json"
    empty = '{"suite": "a", "cells": [{}]}'
    for content, got in (("{", "JSONDecodeError"), ("[]", "TypeError"), (empty, "without row")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=rf"t\.json: expected a study's table .*{got}"):
            read_table(path)


def test_the_command_takes_folders_suites_and_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        study = Study(suite(name=name), tmp_path / name, begin=True)
        work(study, run=train, poll=0.01)
    assert main(["study", "table", "two", "--format", "json", "--to", "two.json"]) == 0
    capsys.readouterr()
    assert main(["study", "ranks", "one", "--format", "csv", "two.json"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0])[6:] == ["one: one", "one: two", "two: one", "two: two"]
    assert {row["method"] for row in rows} == {"lora", "randlora", "full"}
    for form in ([], ["--format", "markdown"]):
        assert main(["study", "ranks", "one", "two", *form, "--methods", "lora, randlora"]) == 0
        text = capsys.readouterr().out
        assert "two: one" in text
        assert "full" not in text
    assert main(["study", "ranks", "one", "two", "--format", "json", "--to", "r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["studies"] == ["one", "two"]
    # A table of the same name as a study is called by its place.
    capsys.readouterr()
    assert main(["study", "ranks", "two", "two.json"]) == 0
    assert "two.json: one" in capsys.readouterr().out
    (tmp_path / "three.yaml").write_text(in_yaml(suite(name="three")))
    for words, said in (
        (["one", "./one"], "./one: expected each study once"),
        (["one", "none"], "none: expected a YAML file"),
        (["three.yaml"], "got none that have one in every column"),
        (["one", "--methods", "lora"], "got lora"),
    ):
        assert main(["study", "ranks", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "runs").exists()
