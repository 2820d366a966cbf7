"""The command-line tool: parse, call, exit code."""
