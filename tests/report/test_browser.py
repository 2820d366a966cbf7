"""The page in a real browser: it asks for nothing, complains of nothing, and does what its buttons say."""

import json
import time

import pytest

from browser import CHROMIUM, Browser
from made_runs import made_run
from randlora.report.page.write import write_page
from randlora.training import MethodConfig

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

HOSTILE = '<img src=x onerror=alert(1)> $x^ "quoted" <script>alert(2)</script>'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for number, rank in enumerate((4, 10, 8)):
        method = MethodConfig(name="lora", r=rank, alpha=8.0)
        hardware = {"device": HOSTILE}
        made_run(folder / "runs" / f"run-{number}", method, test=80.0 + number, model=HOSTILE, hardware=hardware)
    made_run(folder / "runs" / HOSTILE.replace("/", "|"), MethodConfig(name="full"), validation=85.0)
    score = {"metric": HOSTILE, "value": 0.5, "error": None, "shots": 0}
    task = {"scores": [score], "limit": 10, "batch_size": 8, "lm_eval": HOSTILE}
    harness = {f"task-{number}": task for number in range(9)} | {HOSTILE: task}
    (folder / "runs" / "run-0" / "harness.json").write_text(json.dumps(harness), encoding="utf-8")
    axis = [0.0, 0.5, 1.0]
    edge = {"edge": "a – b", "barrier": 0.5, "at": 0.5, "highest loss": 2.0, "losses": [1.0, 2.0, 1.0]}
    landscape = {
        "title": HOSTILE,
        "summary": [HOSTILE],
        "runs": ["a", "b", HOSTILE],
        "plane": "paper",
        "corners": [[0, 0], [0.5, 1], [1, 0]],
        "corner_losses": [1.0, 1.0, 1.0],
        "x": axis,
        "y": axis,
        "losses": [[1.0, 2.0, 1.0], [2.0, 3.0, 2.0], [1.0, 2.0, 1.5]],
        "edges": [edge],
        "more": {"Ranks": [{"r": number, "rank": 64} for number in (4, 16, 8)]},
    }
    (folder / "runs" / "analysis").mkdir()
    (folder / "runs" / "analysis" / "landscape.json").write_text(json.dumps(landscape), encoding="utf-8")
    return write_page([folder / "runs"], folder / "out")


@pytest.fixture(scope="module")
def browser(page):
    with Browser() as opened:
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        opened.open(page)
        yield opened


COLUMN = "[...document.querySelectorAll('#task-1-methods tbody tr')].map(row => row.cells[{}].textContent)"


def test_a_heading_sorts_by_keyboard_and_says_so(browser):
    before = browser.run(COLUMN.format(0))
    browser.run("document.querySelector('#task-1-methods thead th button').focus()")
    browser.press("Enter", "\r")
    assert browser.run(COLUMN.format(0)) == ["full", "lora r=4", "lora r=8", "lora r=10"] != before
    sort = "document.querySelector('#task-1-methods thead th').getAttribute('aria-sort')"
    assert browser.run(sort) == "ascending"
    browser.press("Enter", "\r")
    assert browser.run(sort) == "descending"
    assert browser.run(COLUMN.format(0))[-1] == "full"
    assert "descending" in browser.run("document.getElementById('said').textContent")
    # Numbers by their value; the run without a test score stays last, whichever the direction.
    click = "document.querySelectorAll('#task-1-methods thead th button')[6].click()"
    for expected in (["80.0", "81.0", "82.0", "–"], ["82.0", "81.0", "80.0", "–"]):
        browser.run(click)
        assert browser.run(COLUMN.format(6)) == expected


def test_a_table_whose_first_column_has_numbers_sorts_by_them(browser):
    table = "document.querySelector('[id$=more-1]')"
    assert browser.run(f"getComputedStyle({table}.tBodies[0].rows[0].cells[0]).textAlign") == "right"
    browser.run(f"{table}.querySelector('thead button').click()")
    assert browser.run(f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)") == ["4", "8", "16"]


def test_the_filter_leaves_the_rows_with_all_words(browser):
    browser.run("document.getElementById('all-runs-filter').focus()")
    browser.call("Input.insertText", text="lora r=10")
    shown = "[...document.querySelectorAll('#all-runs tbody tr')].filter(row => row.offsetHeight).length"
    assert browser.run(shown) == 1
    assert browser.run("document.getElementById('all-runs-count').textContent") == "1 of 4 rows"


def test_dark_follows_the_system_and_the_button(browser):
    back = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(back)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    pressed = "document.getElementById('theme').getAttribute('aria-pressed')"
    for _ in range(100):  # the page hears of it later than this process
        if browser.run(pressed) == "true":
            break
        time.sleep(0.05)
    assert browser.run(pressed) == "true"
    assert browser.run(back) != light
    browser.run("document.getElementById('theme').click()")
    assert browser.run(back) == light
    ink = "getComputedStyle(document.querySelector('.drawing svg text')).fill"
    black = browser.run(ink)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(ink) != black


def test_a_phone_scrolls_down_and_not_aside(browser):
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") == 360
    assert browser.run("document.documentElement.clientWidth") == 360
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_on_paper_it_is_light_and_has_its_headings(browser):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('.drawing svg')).color") == "rgb(0, 0, 0)"
    assert browser.run("document.querySelector('thead th').innerText") == "method"
    # With a box in it, such as a button's, a table's head would be on the first of its sheets only.
    assert browser.run("getComputedStyle(document.querySelector('thead th button')).display") == "contents"
    assert browser.run("document.querySelector('nav').offsetHeight") == 0
    # Configs take a sheet each: those that are open are printed.
    assert browser.run("document.getElementById('configs').offsetHeight") == 0
    browser.run("document.querySelector('.config').open = true")
    shown = "[...document.querySelectorAll('.config')].filter(config => config.offsetHeight).length"
    assert browser.run(shown) == 1
    browser.run("document.querySelector('.config').open = false")
    browser.call("Emulation.setEmulatedMedia", media="", features=dark)


def test_the_config_is_copied(browser):
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.run("document.querySelector('.config').open = true")
    browser.run("document.querySelector('.config .copy').click()")
    said = "new Promise(done => setTimeout(() => done(document.getElementById('said').textContent), 200))"
    assert browser.run(said) == "copied"


def test_a_surface_turns_with_the_arrow_keys(browser):
    picture = "document.querySelector('[data-surface]').toDataURL()"
    before = browser.run(picture)
    browser.run("document.querySelector('[data-surface]').focus()")
    browser.press("ArrowLeft")
    assert browser.run(picture) != before


@pytest.mark.parametrize("width", [360, 1280])
def test_a_surface_is_whole_however_it_is_turned_and_its_names_are_legible(browser, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=False)
    rim = """(() => {
      const canvas = document.querySelector('[data-surface]');
      const {width, height} = canvas, copy = new OffscreenCanvas(width, height);
      const context = copy.getContext('2d', {willReadFrequently: true});
      context.drawImage(canvas, 0, 0);
      const sides = [[0, 0, width, 1], [0, height - 1, width, 1], [0, 0, 1, height], [width - 1, 0, 1, height]];
      return sides.some(side => context.getImageData(...side).data.some(part => part));
    })()"""
    browser.run("document.querySelector('[data-surface]').focus()")
    for _ in range(2):
        for key in ("ArrowUp", "ArrowLeft", "ArrowUp", "ArrowLeft") * 5:
            browser.press(key)
            assert browser.run(rim) is False
        for _ in range(20):
            browser.press("ArrowDown")
    # A pixel of the screen for each of the canvas: texts are as large as they say, on a phone, too.
    assert browser.run("(canvas => canvas.width / canvas.clientWidth)(document.querySelector('[data-surface]'))") == 2
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_what_is_drawn_and_tabulated_has_names(browser):
    every = "[...document.querySelectorAll('{}')].every(part => {})"
    assert browser.run(every.format("svg", "part.querySelector('title') && part.querySelector('desc')"))
    assert browser.run(every.format("table", "part.caption && part.querySelector('th[scope=row]')"))
    ids = "[...document.querySelectorAll('[id]')].map(part => part.id)"
    assert browser.run(f"new Set({ids}).size === {ids}.length")
    named = "part.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id))"
    assert browser.run(every.format("[aria-labelledby]", named))


def test_nothing_is_asked_for_and_nothing_from_outside_runs(browser, page):
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert [url for url in browser.requests if url != page.resolve().as_uri() and not url.startswith("data:")] == []
    assert browser.complaints == []
