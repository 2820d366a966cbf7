"""Pages of docs/ of which a part is written by a script."""


def with_table(page, begin, end, table):
    """The text of a page with a table between two marks, in place of what stands there."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    return before + begin + table + end + rest.split(end)[1]
