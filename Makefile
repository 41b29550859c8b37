# `make figures` and `make test` do all set-up; they need Python 3.11 or newer and make.

PYTHON ?= python3
BIN := .venv/bin
EXPERIMENTS := $(filter-out experiments/benchmark_%, $(wildcard experiments/*.py))

.PHONY: figures test benchmark clean

# Every experiment runs even if a claim of another fails (exit 3); it then fails at the end.
figures: .venv/installed
	@failed=0; for file in $(EXPERIMENTS); do \
	  $(BIN)/toymodels run $$file || { test $$? -eq 3 && failed=3; } || exit 1; \
	done; $(BIN)/toymodels claims figures README.md || test $$? -eq 3; exit $$failed

test: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/pytest --numprocesses auto

benchmark: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[benchmark]
	$(BIN)/toymodels run experiments/benchmark_training.py

.venv/created:
	$(PYTHON) -c 'import sys; sys.exit("toymodels needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/created pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[baselines]
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[test]
	@touch $@

clean:
	rm -rf .venv results
