"""The report: what is put together, what is chosen, what is escaped, and what is refused."""

import io
import json
import re
import shutil
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_runs import made_run
from randlora.errors import CheckpointError, ConfigError, OutputError
from randlora.report.page.figures import rate_curves, score_by
from randlora.report.page.finding import find
from randlora.report.page.grouping import group
from randlora.report.page.labels import distinguished
from randlora.report.page.paper import paper_points
from randlora.report.page.summary import summarize
from randlora.report.page.write import write_page
from randlora.training import ImageTextData, MethodConfig, TextData, TrainConfig

RANDLORA = MethodConfig(name="randlora", r=8, alpha=8.0, bases="structured", seed=0, strategy="auto")


def test_an_arm_is_what_differs_in_seed_and_rate_and_its_rate_is_chosen_on_validation(tmp_path):
    for seed, validation, test in ((0, 82.0, 70.0), (1, 84.0, 74.0)):
        made_run(tmp_path / f"slow-{seed}", rate=1e-3, seed=seed, validation=validation, test=test)
    made_run(tmp_path / "fast", rate=1e-2, validation=81.0, test=99.0)  # better on test, which does not count
    made_run(tmp_path / "other", RANDLORA, validation=90.0, test=60.0)
    (setting,) = group(find([tmp_path]))
    assert [arm.label for arm in setting.arms] == ["randlora r=8", "lora r=4"]
    lora = setting.arms[1]
    assert lora.rate == 1e-3
    assert [run.record.seed for run in lora.chosen] == [0, 1]
    test = setting.score(lora)
    assert (setting.split, test.mean, test.count) == ("test", 72.0, 2)
    assert test.deviation == pytest.approx(8**0.5)


@pytest.mark.parametrize("other", [82.0, 79.0])
def test_the_further_seeds_of_a_searchs_best_rate_do_not_count_against_it(other, tmp_path):
    for seed, validation in ((0, 82.0), (1, 60.0)):
        made_run(tmp_path / f"best-{seed}", rate=1e-3, seed=seed, validation=validation, test=70.0)
    for rate in (1e-4, 1e-2):
        made_run(tmp_path / f"{rate:g}", rate=rate, validation=other)
    (setting,) = group(find([tmp_path]))
    (arm,) = setting.arms
    assert (arm.rate, setting.split, setting.score(arm).count) == (1e-3, "test", 2)
    assert [value.mean for value in arm.rates.values()] == [other, 82.0, other]
    (line,) = summarize([setting], [], 0).best
    assert "test accuracy 70.0 ± 0.0 %, before training on validation 10.0 %" in line


def test_the_rate_of_a_search_is_the_one_that_it_scored_on_test(tmp_path):
    made_run(tmp_path / "higher", rate=8e-3, validation=60.0)
    made_run(tmp_path / "best", rate=4e-3, validation=82.0)
    made_run(tmp_path / "taken", rate=2e-3, validation=81.9, test=70.0)
    (setting,) = group(find([tmp_path]))
    assert (setting.arms[0].rate, setting.split) == (2e-3, "test")
    assert "edge" not in str(summarize([setting], [], 0))
    made_run(tmp_path / "highest", rate=1.6e-2, validation=83.0)
    assert "is at the edge of those tried; try 0.03" in str(summarize(group(find([tmp_path])), [], 0))


def test_scores_are_shown_on_a_split_that_all_have(tmp_path):
    made_run(tmp_path / "tested", validation=80.0, test=70.0)
    made_run(tmp_path / "untested", RANDLORA, validation=75.0)
    (setting,) = group(find([tmp_path]))
    assert [setting.score(arm).mean for arm in setting.arms] == [80.0, 75.0]


def test_other_data_are_another_task(tmp_path):
    made_run(tmp_path / "few", config={"data": TextData(train="intents/train.csv", test="t.csv", shots=4)})
    made_run(tmp_path / "all", config={"data": TextData(train="intents/train.csv", test="t.csv")})
    assert [s.title for s in group(find([tmp_path]))] == [
        "text-classification, intents shots=4",
        "text-classification, intents shots=all",
    ]


def test_data_of_one_name_whose_content_changed_are_another_task(tmp_path):
    def made(name, seed, **digests):
        fingerprint = {"model": "m" * 64, **{f"{split} data": 64 * digit for split, digit in digests.items()}}
        made_run(tmp_path / name, seed=seed, test=80.0, config={"fingerprint": fingerprint})

    made("a", 0, training="1", test="1")
    made("b", 1, training="2", test="1")  # another draw of the same
    made("c", 0, training="3", test="1")  # the same draw of others
    made("d", 2, training="4", test="5")
    made_run(tmp_path / "e", seed=3)  # of which nothing is known
    few = TextData(train="intents/train.csv", validation=0.1, test="intents/test.csv", shots=4)
    made_run(tmp_path / "f", config={"data": few, "fingerprint": {"training data": 64 * "6"}})
    title = "text-classification, intents "
    assert {setting.title: [run.name for run in setting.runs] for setting in group(find([tmp_path]))} == {
        f"{title}…all test #1111 training #1111": ["a", "b", "e"],
        f"{title}…all test #1111 training #3333": ["c"],
        f"{title}…all test #5555 training #4444": ["d"],
        f"{title}shots=4": ["f"],
    }


def test_a_rate_at_which_a_search_diverged_is_crossed(tmp_path):
    for rate, value in ((1e-3, 80.0), (1e-2, 85.0)):
        made_run(tmp_path / "search" / f"lr{rate:g}", rate=rate, validation=value)
    found = {"learning_rate": 1e-2, "validation": {"0.001": 80.0, "0.01": 85.0, "0.1": None}}
    (tmp_path / "search" / "search.json").write_text(json.dumps(found), encoding="utf-8")
    (setting,) = grouped = group(find([tmp_path]))
    assert setting.arms[0].diverged == [0.1]
    axes = rate_curves(setting).axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[0.1]]
    assert not any("edge" in words for words, _ in summarize(grouped, [], 0).steps)
    (tmp_path / "search" / "search.json").unlink()
    assert any("try 0.1" in words for words, _ in summarize(group(find([tmp_path])), [], 0).steps)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.text(max_size=90), st.integers(0, 2), st.text(max_size=9)), max_size=6))
def test_labels_are_different_and_print(parts):
    labels = distinguished([name for name, _, _ in parts], [{"a": {"b": b}, "c": c} for _, b, c in parts])
    assert len(set(labels)) == len(labels) == len(parts)
    assert all(label.isprintable() and len(label) < 70 for label in labels)


def test_what_is_damaged_is_passed_over_in_a_folder_and_refused_by_name(tmp_path, caplog):
    made_run(tmp_path / "good", test=80.0)
    made_run(tmp_path / "bare", RANDLORA, metrics={}, history=[])
    large = {"metrics": {"validation_accuracy": 1e308}, "history": [{"step": 1e308, "loss": 1e308}, {"loss": 1.0}]}
    made_run(tmp_path / "large", MethodConfig(name="full"), **large)
    for name in ("broken", "endless", "unfinished", "foreign"):
        made_run(tmp_path / name)
    (tmp_path / "broken" / "record.json").write_text("{")
    record = (tmp_path / "endless" / "record.json").read_text()
    (tmp_path / "endless" / "record.json").write_text(record.replace('"train_seconds": 20.0', '"train_seconds": 1e999'))
    (tmp_path / "unfinished" / "record.json").unlink()
    (tmp_path / "foreign" / "config.yaml").write_text("- no config\n")
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "theory.json").write_text('{"title": "t", "summary": [], "rows": [{}], "methods": []}')
    page = write_page([tmp_path], tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("<tr>") > 3
    told = [message for message in caplog.messages if message.startswith("passed over")]
    assert len(told) == 5
    for name in ("broken", "endless", "unfinished", "foreign", "theory.json"):
        assert sum(name in line for line in told) == 1
        assert page.partition('id="passed-over"')[2].count(f"/{name}") >= 1
    for name in ("broken", "endless", "unfinished", "foreign"):
        with pytest.raises((CheckpointError, ConfigError)):
            find([tmp_path / name])
    for path in ("nothing", "out"):
        with pytest.raises(ConfigError):
            find([tmp_path / path])


def test_a_run_that_is_named_twice_counts_once(tmp_path):
    made_run(tmp_path / "runs" / "one")
    found = find([tmp_path / "runs" / "one", tmp_path / "runs", tmp_path / "runs" / "one"])
    assert [run.name for run in found.runs] == ["one"]


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' $x^$ {{ 7*7 }}\x1b[31m\u202e"


def test_texts_from_outside_stay_texts(tmp_path):
    name = HOSTILE.replace("/", "|")
    run = made_run(tmp_path / "runs" / name, test=80.0, model=HOSTILE, unit=HOSTILE, hardware={"device": HOSTILE})
    made_run(tmp_path / "runs" / "_b", MethodConfig(name="full"), versions={HOSTILE: HOSTILE}, started=HOSTILE)
    with (run / "config.yaml").open("a") as file:
        file.write(f"# {HOSTILE.translate({27: None})}\n")
    (run / "analysis").mkdir()
    rows = [{"layer": HOSTILE, "block": HOSTILE, HOSTILE: 0.5}]
    content = {"title": HOSTILE, "summary": [HOSTILE], "layers": rows, "pairs": [HOSTILE], "split": "test"}
    (run / "analysis" / "cka.json").write_text(json.dumps(content), encoding="utf-8")
    out = write_page([tmp_path / "runs"], tmp_path / "out").parent
    text = (out / "report.html").read_text(encoding="utf-8")
    page = _Tags()
    page.feed(text)
    assert page.tags.count("script") == 1
    assert {"img", "iframe", "object", "embed", "form", "base"}.isdisjoint(page.tags)
    assert not any(key.startswith("on") for key, _ in page.attributes)
    links = [value for key, value in page.attributes if key in {"src", "href", "action"}]
    assert all(value.startswith(("#", "data:,")) for value in links)
    assert "\x1b" not in text
    assert "{{ 7*7 }}" in text
    drawings = sorted((out / "figures").glob("*.svg"))
    assert {"task-1-loss-by-step.svg", "analysis-1-cka.svg"} <= {path.name for path in drawings}
    for path in drawings:
        tree = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - our own file
        assert not any(node.tag.endswith("script") for node in tree.iter())
        assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_a_name_that_goes_on_and_on_is_cut_in_the_summary(tmp_path):
    made_run(tmp_path / "a", test=80.0, model=f"models/{'y' * 200}")
    summary = summarize(group(find([tmp_path])), [], 0)
    assert all(len(line) < 200 for line in [*summary.ran, *summary.best, *summary.cost])


def test_fifty_runs_are_a_small_page(tmp_path):
    history = [{"loss": 2 / (step + 1), "validation_accuracy": step / 40, "step": step} for step in range(1, 160)]
    for number in range(50):
        method = MethodConfig(name="lora", r=4 ** (number % 3), alpha=8.0)
        made_run(
            tmp_path / f"{number}", method, rate=10.0 ** -(number % 2), seed=number // 10, test=80.0, history=history
        )
    started = time.process_time()
    page = write_page([tmp_path], tmp_path / "out")
    assert page.stat().st_size < 1.5e6
    assert time.process_time() - started < 30


def test_only_a_reports_folder_is_replaced(tmp_path):
    run = made_run(tmp_path / "run", history=[])  # nothing to draw
    out = tmp_path / "out"
    first = write_page([run], out).read_bytes()
    (out / "figures" / "old.png").write_bytes(b"")
    assert write_page([run], out).read_bytes() == first  # the same runs, the same page
    assert not (out / "figures" / "old.png").exists()
    for place, content in (("notes.txt", "mine"), ("report.html", "mine"), ("figures/thesis.tex", "mine")):
        other = tmp_path / "other"
        shutil.copytree(out, other)
        (other / place).write_text(content)
        with pytest.raises(OutputError, match="one that holds"):
            write_page([run], other)
        assert (other / place).read_text() == content
        shutil.rmtree(other)
    with pytest.raises(OutputError, match="a file"):
        write_page([run], out / "report.html")
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "record.json"]


CLIP = "openai/clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainConfig(task="image-text", model=CLIP, data=ImageTextData(train="tanganke/EuroSAT")), {"Table 11"}),
        (TrainConfig(task="image-text", model=CLIP, data=ImageTextData(train="x/dtd:train", shots=16)), {"Table 5"}),
        (TrainConfig(task="image-text", model=CLIP, data=ImageTextData(train="x/dtd", shots=3)), set()),
        (TrainConfig(task="image-text", model=CLIP, data=ImageTextData(train="x/dtd", encoders="vision")), set()),
        (TrainConfig(task="image-text", model="clip-vit-base-patch16", data=ImageTextData(train="x/dtd")), set()),
        (TrainConfig(model="FacebookAI/roberta-base", data=TextData(train="glue/sst2")), {"Table 4"}),
        (TrainConfig(model="FacebookAI/roberta-base", data=TextData(train="SST-2/train.csv", shots=4)), set()),
        (TrainConfig(model="roberta-base", data=TextData(train="banking77")), set()),
        (TrainConfig(model="roberta-base", data=TextData(train="x/y", suite="glue/cola")), {"Table 4"}),
    ],
)
def test_the_papers_figures_are_those_of_the_same_task(config, expected):
    assert {point.source for point in paper_points(config, "%")} == expected


def test_the_papers_points_are_drawn_in(tmp_path):
    config = TrainConfig(task="image-text", model=CLIP, data=ImageTextData(train="x/eurosat"))
    points = {point.method: point for point in paper_points(config, "%")}
    assert points["RandLoRA-6"].memory == 6.6e9
    made_run(tmp_path / "run", test=80.0)
    (setting,) = group(find([tmp_path]))
    paper = [(point, point.memory) for point in points.values()]
    axes = score_by(setting, lambda run: run.record.peak_memory_bytes, "memory", paper).axes[0]
    drawn = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert drawn["paper: LoRA-32"] == (6.8e9, points["LoRA-32"].value)
    # Where the paper does not say what they cost, they are lines across, each of its own kind.
    across, drawn = (
        score_by(setting, lambda _: 1.0, "cost", [(point, None) for point in points.values()]),
        io.BytesIO(),
    )
    across.savefig(drawn, format="svg")
    assert len(set(re.findall('style="[^"]*#999999[^"]*"', drawn.getvalue().decode()))) == len(points) == 5
