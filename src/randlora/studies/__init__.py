"""Studies: grids of runs, each place of them a search over learning rates, and their tables."""
