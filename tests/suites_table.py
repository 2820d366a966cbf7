"""The table of docs/suites.md, from the registry: `python tests/suites_table.py` writes it, a test compares it."""

from pathlib import Path

from pages import with_table
from randlora.report import Column
from randlora.report.table import markdown_table
from randlora.tasks.suites.registry import suite_entries

PAGE = Path(__file__).parent.parent / "docs" / "suites.md"
BEGIN, END = "<!-- written by tests/suites_table.py -->\n", "<!-- until here -->\n"

COLUMNS = (
    Column("`data.suite`", "name"),
    Column("data", "data"),
    Column("columns", "columns"),
    Column("classes", "classes", "{:,}".format),
    Column("scored by, or first caption", "about"),
    Column("epochs", "epochs", "{:g}".format),
    Column("unverified", "unverified"),
)


def row(name, entry):
    """A line of the table."""
    data = entry.data
    train, test = data["train"], data.get("test", "")
    if test.partition(":")[0] == train.partition(":")[0]:
        test = test.partition(":")[2]
    keys = ("text_column", "text_pair_column", "image_column", "label_column")
    about = data.get("prompt_templates", data.get("metrics", ["–"]))
    return {
        "name": f"`{name}`",
        "data": f"{data['subset']} of {train}, {test}" if "subset" in data else f"{train}, {test}".removesuffix(", "),
        "columns": ", ".join(data[key] for key in keys if key in data) or None,
        "classes": entry.classes,
        "about": about[0] if "prompt_templates" in data else ", ".join(about).replace("_", " "),
        "epochs": entry.epochs,
        "unverified": entry.unverified or None,
    }


def table():
    """The table."""
    rows = [row(name, entry) for name, entry in suite_entries().items()]
    return markdown_table(rows, COLUMNS) + "\n"


def written():
    """The page with the table in it."""
    return with_table(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
