"""What the pages name is there: files that links lead to, and Python files by their names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(path for folder in ("docs", "src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
]
FILES = [path for folder in ("src", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
MADE_UP = {"docs/add-a-method.md": {"src/randlora/methods/row_scaled.py"}}
"""Files that a page has its reader write."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
    if page.name == "log.md":  # which tells of files that are gone
        return
    names = set(re.findall(r"`([\w/.-]+\.py)`", text)) - MADE_UP.get(str(page.relative_to(ROOT)), set())
    assert [name for name in names if not any(str(path).endswith(f"/{name}") for path in FILES)] == []
