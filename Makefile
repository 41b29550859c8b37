# `make figures` and `make test` do all set-up; they need Python 3.11 or newer and make.
# `make figures PYTHON=python3.13` does it with that Python.

PYTHON ?= python3
BIN := .venv/bin
EXPERIMENTS := $(filter-out experiments/benchmark_%, $(wildcard experiments/*.py))

# A Python that was asked for must be that of an environment that is there already.
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(BIN)/python),)
version = $(shell $(1) -c 'import sys; print(*sys.version_info[:2], sep=".")')
ifneq ($(call version,$(PYTHON)),$(call version,$(BIN)/python))
$(error .venv has Python $(call version,$(BIN)/python), not $(PYTHON): remove .venv first)
endif
endif
endif

.PHONY: figures draw test benchmark clean

# Every experiment is done even if a claim of another fails (exit 3); it then fails at the end.
define each
	@failed=0; for file in $(EXPERIMENTS); do \
	  $(BIN)/toymodels $(1) $$file || { test $$? -eq 3 && failed=3; } || exit 1; \
	done; $(BIN)/toymodels claims figures README.md || test $$? -eq 3; exit $$failed
endef

figures: .venv/installed
	$(call each,run)

# Claims and figures again, from the results of an earlier `make figures`.
draw: .venv/installed
	$(call each,draw)

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

# What was trained stays: results/ is not only ours.
clean:
	rm -rf .venv
