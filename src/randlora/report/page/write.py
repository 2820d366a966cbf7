"""The page: one HTML file with everything in it, and each figure as a file beside it."""

import base64
import hashlib
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from randlora.files import checked_folder, new_folder, writing
from randlora.messages import note, short
from randlora.report.page.amounts import series_of
from randlora.report.page.amounts_section import amounts_section
from randlora.report.page.analyses import ShownAnalysis, show
from randlora.report.page.drawing import Drawing
from randlora.report.page.finding import FoundAnalysis, find
from randlora.report.page.grouping import Setting, group
from randlora.report.page.sections import MOST_SETTINGS, section
from randlora.report.page.study_section import study_section
from randlora.report.page.suites import suite_tables
from randlora.report.page.summary import summarize
from randlora.report.page.tables import machines_table, runs_table

PAGE, FIGURES = "report.html", "figures"
_MARK = '<meta name="generator" content="randlora report">'
_LONGEST_CONFIG = 20_000


def page_folder(path: str | Path) -> Path:
    """Check the folder for a report, before anything is read.

    Args:
        path: A folder that is new, empty, or holds a report, which is replaced.

    Raises:
        OutputError: It holds something else.
    """
    return checked_folder(path, "a new or empty folder, or one of a report", _foreign)


def _foreign(folder: Path) -> str | None:
    names = sorted(entry.name for entry in folder.iterdir())
    other = next((name for name in names if name not in {PAGE, FIGURES}), None)
    if names and other is None and not _is_ours(folder):
        return PAGE if PAGE in names else FIGURES
    return other


def _is_ours(folder: Path) -> bool:
    page, figures = folder / PAGE, folder / FIGURES
    if page.is_symlink() or figures.is_symlink() or not page.is_file():
        return False
    pictures = figures.is_dir() and all(entry.suffix in {".png", ".svg"} for entry in figures.iterdir())
    with page.open("r", encoding="utf-8", errors="replace") as file:
        return pictures and _MARK in file.read(2000)


def write_page(paths: Sequence[str | Path], output: str | Path) -> Path:
    """Write the report on runs and analyses.

    Args:
        paths: Folders of runs, and folders with runs or analyses at any depth.
        output: See `page_folder`.

    Returns:
        The page's file. The figures are beside it, in `figures/`, as PNG and SVG.

    Raises:
        CheckpointError: A run that is named is unfinished or damaged.
        ConfigError: A path is no folder, or there is nothing to report.
        OutputError: The output folder holds something else, or cannot be written.
    """
    folder = page_folder(output)
    found = find(paths)
    settings = group(found)
    drawn = [section(setting, f"task-{number}") for number, setting in enumerate(settings[:MOST_SETTINGS], start=1)]
    studies = [study_section(study, f"study-{number}") for number, study in enumerate(found.studies, start=1)]
    amounts = [amounts_section(one, f"amounts-{number}") for number, one in enumerate(series_of(settings), start=1)]
    analyses, damaged = _analyses(found.analyses)
    suites, foreign = suite_tables(settings)
    for line in foreign:
        note(f"passed over: {line}")
    passed_over = [*found.passed_over, *damaged, *foreign]
    context = {
        "title": short(f"Report on {_subject(settings, analyses)}"),
        "summary": summarize(settings, [part.drawing.name.rpartition("-")[2] for part in analyses], len(passed_over)),
        "studies": studies,
        "amounts": amounts,
        "sections": drawn,
        "undrawn": [setting.title for setting in settings[MOST_SETTINGS:]],
        "suites": suites,
        "runs": runs_table(settings),
        "analyses": analyses,
        "configs": [(short(run.name), _config(run.text)) for setting in settings for run in setting.runs],
        "machines": machines_table(found.runs),
        "passed_over": passed_over,
    }
    page = _render(context)
    drawings = [drawing for own in studies for drawing in own.drawings]
    drawings += [drawing for part in drawn for drawing in part.drawings]
    drawings += [drawing for one in amounts for drawing, _, _ in one.panels] + [part.drawing for part in analyses]
    _write(folder, page, drawings)
    return folder / PAGE


def _subject(settings: Sequence[Setting], analyses: Sequence[ShownAnalysis]) -> str:
    if len(settings) == 1:
        return settings[0].title
    return f"{len(settings)} tasks" if settings else analyses[0].title if analyses else "nothing"


def _analyses(found: Sequence[FoundAnalysis]) -> tuple[list[ShownAnalysis], list[str]]:
    shown, damaged = [], []
    for number, analysis in enumerate(found, start=1):
        part = show(analysis, number)
        if isinstance(part, str):
            note(f"passed over: {part}")
            damaged.append(part)
        else:
            shown.append(part)
    return shown, damaged


def _config(text: str) -> str:
    return text if len(text) <= _LONGEST_CONFIG else f"{text[:_LONGEST_CONFIG]}\n# and {len(text):,} characters in all"


def _render(context: dict[str, Any]) -> str:
    """The page; every text in it is escaped, and no script runs but the page's own, which its digest names."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("randlora.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join(_own(name) for name in ("page.js", "surface.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"mark": _MARK, "style": _own("style.css"), "script": script}
    safe = {name: Markup(text) for name, text in own.items()}  # noqa: S704 - from this package, not from outside
    return environment.get_template("page.html").render(digest=digest, **safe, **context)


def _own(name: str) -> str:
    return files("randlora.report.page").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _write(folder: Path, page: str, drawings: Sequence[Drawing]) -> None:
    """Put everything in place; an earlier report goes when all of this one is in memory."""
    with writing(folder):
        for part in (folder / PAGE, folder / FIGURES):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)
        with new_folder(folder) as unfinished:
            (unfinished / FIGURES).mkdir()
            for drawing in drawings:
                (unfinished / FIGURES / f"{drawing.name}.png").write_bytes(drawing.png)
                (unfinished / FIGURES / f"{drawing.name}.svg").write_text(drawing.svg, encoding="utf-8")
            (unfinished / PAGE).write_text(page, encoding="utf-8")
