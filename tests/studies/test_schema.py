from pathlib import Path

import pytest
import yaml

from randlora.cli import main
from randlora.errors import ConfigError
from randlora.studies.cells import cells_of
from randlora.studies.paper import figures, paper_figure, paper_trained
from randlora.studies.schema import SUITE_FILE, in_yaml, load_suite
from randlora.studies.study import Study
from study_stand_in import suite

SUITES = Path(__file__).parent.parent.parent / "suites" / "small"


@pytest.fixture
def write(tmp_path):
    def write(text=None, **changes):
        path = tmp_path / "suite.yaml"
        path.write_text(in_yaml(suite(**changes)) if text is None else text, encoding="utf-8")
        return path

    return write


def test_a_suite_is_read_as_it_was_written(write):
    assert load_suite(write()) == suite()
    (write().parent / "study").mkdir()
    (write().parent / "study" / SUITE_FILE).write_text(in_yaml(suite(name="other")), encoding="utf-8")
    assert load_suite(write().parent / "study") == suite(name="other")


def test_words_take_precedence(write):
    words = ["--base.data.train", "c.csv", "--tasks.two.data.test=010", "--seeds", "[7]", "--base.num_epochs", "4"]
    words += ["--methods.lora.alpha", "5", "--methods.lora.options.bias", "all"]
    found = load_suite(write(), words)
    cells = {(cell.task, cell.method): cell for cell in cells_of(found)}
    assert found.seeds == [7]
    assert cells["one", "lora"].config.data.train == "c.csv"
    assert cells["two", "lora"].config.data.test == "010"
    assert cells["one", "randlora"].config.optimization.epochs == 4.0
    assert (cells["one", "lora"].config.method.alpha, cells["one", "full"].config.method.alpha) == (5.0, None)
    assert cells["one", "lora"].config.method.options == {"bias": "all"}


def test_options_of_a_method_are_replaced_one_by_one_dotted_or_nested(write):
    lora = {"name": "lora", "target_modules": ["query"], "options": {"layers_to_transform": [0]}, "options.bias": "all"}
    path = write(methods={"nola": {"name": "nola", "options": {"num_bases": 8}}, "lora": lora}, budgets=[])
    for words, number in (([], 8), (["--methods.nola.options.num_bases", "16"], 16)):
        one, two = cells_of(load_suite(path, words))[:2]
        assert one.config.method.options == {"num_bases": number}
        assert two.config.method.options == {"layers_to_transform": [0], "bias": "all"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": None}, r"seeds: expected a list of whole numbers of at least 0, one or more, got None"),
        ({"learning_rates": [0.1, "fast"]}, r"learning_rates: expected a list of numbers above 0"),
        ({"learning_rates": []}, r"learning_rates: expected a list of numbers above 0"),
        ({"tasks": {}}, r"tasks: expected names with a section each"),
        ({"tasks": {"a.b": {}}}, r"tasks: expected a name of at most 80 letters, digits, single blanks .*, got 'a\.b'"),
        ({"tasks": {"a": {}, "a ": {}}}, r"tasks: expected a name of .*, got 'a '"),
        ({"methods": {"a  b": {"name": "lora"}}}, r"methods: expected a name of .* single blanks .*, got 'a b'"),
        ({"tasks": {"a": None}}, r"tasks\.a: expected a section .*, got nothing \({}, where it has none\)"),
        ({"methods": {"a": {"name": "lora"}, "b": "lora"}}, r"methods\.b: expected a section .*, got 'lora'"),
        ({"rate_seeds": 0}, r"rate_seeds: expected a whole number above 0"),
        ({"seeds": []}, r"seeds: expected a list of whole numbers of at least 0, one or more, got \[\]"),
        ({"name": "../up"}, r"name: expected a name of at most 80 letters, digits and \. _ -, got '\.\./up'"),
        ({"budgets": [{"as_lora": 0}]}, r"budgets: expected ranks or \{as_lora: RANK\}"),
        ({"paper": [{"table": "11", "backbone": "CLIP", "tabel": 1}]}, r"paper\.0\.tabel: expected a known key"),
        (
            {"paper": [{"table": "99", "backbone": "x", "setting": "y"}]},
            r"paper\.0: table: expected a name in",
        ),
        ({"paper": [{"table": "4", "backbone": "RoBERTa", "setting": "full"}]}, r"did you mean RoBERTa-base\?"),
        ({"paper": [{"table": "4", "backbone": "RoBERTa-base"}]}, r"paper\.0: expected a setting"),
    ],
)
def test_what_is_wrong_with_a_suite_is_one_line(write, changes, message):
    values = yaml.safe_load(in_yaml(suite())) | changes
    with pytest.raises(ConfigError, match=message):
        load_suite(write(yaml.safe_dump(values)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base.data.trian", "x"], r"data\.trian: expected a known config key"),
        (["--task.one.data.train", "x"], r"expected a known key of a suite"),
        (
            ["--tasks.three.data.train", "x"],
            r"tasks\.three\.data\.train: expected one of the suite's tasks \(one, two\) and a key of it",
        ),
        (["--seeds", "many"], r"seeds: expected a list of whole numbers"),
        (["--seeds"], r"seeds: expected a value after it, got nothing"),
        (["--seeds.0", "1"], r"expected a known key of a suite"),
        (["--base.output", "x"], r"base\.output: expected nothing: a study sets it"),
    ],
)
def test_a_word_that_has_no_place_is_refused(write, words, message):
    with pytest.raises(ConfigError, match=message):
        load_suite(write(), words)


def test_missing_and_unknown_keys_are_named(write):
    values = yaml.safe_load(in_yaml(suite()))
    del values["methods"]
    with pytest.raises(ConfigError, match=r"methods: expected names with a section each, got nothing"):
        load_suite(write(yaml.safe_dump(values)))
    values["method"] = {}
    values["methods"] = suite().methods
    with pytest.raises(ConfigError, match=r"method: expected a known key of a suite \(did you mean methods\?\)"):
        load_suite(write(yaml.safe_dump(values)))
    with pytest.raises(ConfigError, match="expected a YAML file, got nothing"):
        load_suite("nowhere.yaml")


PAPER = {
    "table": "4",
    "backbone": "RoBERTa-base",
    "setting": "full",
    "trained": "params",
    "columns": {"one": "CoLA"},
    "methods": {"lora as_lora=4": "LoRA-4"},
}


def test_of_the_paper_is_kept_what_words_leave(write):
    path = write(paper=[{**PAPER, "average": "Average"}])
    (paper,) = load_suite(path).paper
    assert (paper.average, paper.columns) == ("Average", PAPER["columns"])
    (paper,) = load_suite(path, ["--tasks", "{two: {}}"]).paper
    assert (paper.average, paper.columns) == (None, {})
    (paper,) = load_suite(path, ["--tasks", "{one: {}, two: {}, three: {}}"]).paper
    assert (paper.average, paper.columns) == (
        None,
        PAPER["columns"],
    )  # ours would be over a task that is not the paper's
    assert load_suite(path, ["--shots", "{few: {data.shots: 4}}"]).paper == []  # its setting is for all data
    with pytest.raises(ConfigError, match=r"column: expected a name in paper\.csv, got 'Mean'"):
        load_suite(write(paper=[{**PAPER, "average": "Mean"}]))


def test_the_papers_figures_stand_beside_those_of_their_cell(write):
    found = load_suite(write(paper=[PAPER]))
    paper, figure = paper_figure(found, "lora as_lora=4", "one", None)
    assert (paper.table, figure) == ("4", "58.4")
    assert paper_figure(found, "lora as_lora=4", "two", None) is None
    assert paper_figure(found, "full", "one", None) is None
    assert (paper_trained(found, "lora as_lora=4"), paper_trained(found, "full")) == ("0.7M", None)
    assert figures()["11", "CLIP-ViT-B/32", "100%", "RandLoRA-6", "CIFAR10"]
    # With words that take a row away, its figures go too.
    assert load_suite(write(paper=[PAPER]), ["--budgets", "[8]"]).paper[0].methods == {}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("methods", {"lora": "LoRA-4"}, r"paper\.0\.methods: expected one of lora as_lora=4, .*, got 'lora'"),
        ("methods", {"full": "FT"}, r"paper\.0: method: expected a name in paper\.csv, got 'FT'"),
        ("columns", {"three": "CoLA"}, r"paper\.0\.columns: expected one of one, two, got 'three'"),
        ("columns", {"one": "Cola"}, r"known: Average, CoLA, "),
        ("trained", "percent", r"paper\.0: column: expected a name in paper\.csv"),
        ("settings", {"few": "full"}, r"paper\.0\.settings: expected one of , got 'few'"),
    ],
)
def test_names_that_the_paper_or_the_suite_has_not_are_refused(write, part, value, message):
    with pytest.raises(ConfigError, match=message):
        load_suite(write(paper=[PAPER | {part: value}]))


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_small_suites_are_whole(path):
    found = load_suite(path)
    cells = cells_of(found)
    assert found.name == path.stem
    counts = {
        "screening": 14,
        "screening-cola": 14,
        "language-e2e": 4,
        "language-commonsense": 4,
        "final": 16,
        "prompts": 81,
        "rank-search": 5,
    }
    counts |= {"cifar10-rank": 8, "cifar10-bases": 8, "banking77": 4}
    assert len(cells) == counts[path.stem]


def test_the_command_says_what_is_wrong_in_one_line(write, capsys):
    path = write(methods={"lora": {"name": "lorra"}})
    for verb in ("run", "work", "status", "table"):
        assert main(["study", verb, str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "method.name" in line
        assert "lorra" in line
    assert main(["study", "work", str(write()), "--gpus", "1"]) == 2
    assert "--gpus: expected --slurm with it" in capsys.readouterr().err
    assert main(["study", "work", str(write()), "--slurm", "0"]) == 2
    assert "--slurm: expected a number of workers" in capsys.readouterr().err
    folder = path.parent / "study"
    assert main(["study", "run", str(write()), "--output", str(folder), "--base.data.train", "./none.csv"]) == 2
    assert "none.csv, which does not exist" in capsys.readouterr().err
    assert not folder.exists()
    (path.parent / "empty").mkdir()
    for words, got in (
        ([str(path.parent / "empty")], "got a folder without"),
        ([str(write()), "--output", str(path)], "got a file"),
    ):
        assert main(["study", "status", *words]) == 2
        assert got in capsys.readouterr().err
    assert main(["study", "table", str(write()), "--to", str(path.parent)]) == 2
    assert "--to: expected a file" in capsys.readouterr().err


def test_a_file_that_is_not_what_was_planned_is_said_to_be_none(tmp_path, capsys, caplog):
    path, folder = tmp_path / "suite.yaml", str(tmp_path / "s")
    path.write_text(in_yaml(suite()), encoding="utf-8")
    Study(suite(), folder, begin=True)
    assert main(["study", "status", str(path), "--output", folder]) == 0
    assert "plan" not in caplog.text
    path.write_text(in_yaml(suite(tasks={"three": {}})), encoding="utf-8")
    assert main(["study", "status", str(path), "--output", folder]) == 0
    assert "three" not in capsys.readouterr().out
    assert f"s goes by the plan of its last `randlora study run`, which differs from {path}" in caplog.text
