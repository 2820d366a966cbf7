"""Suites: sets of tasks that papers score together, with their protocols. Nothing here trains."""
