"""Records to tables and pictures.

Rows are mappings with the keys of a `record.json`, nested as there, and whatever the caller adds (a label, a setting).
The pictures, in `randlora.report.plots`, need matplotlib and are imported from there.
"""

from randlora.report.table import Column, markdown_table, run_columns, text_table

__all__ = ["Column", "markdown_table", "run_columns", "text_table"]
