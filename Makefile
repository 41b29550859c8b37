# Each target does all its set-up. It needs Python 3.11 or newer and make.

PYTHON ?= python3
BIN := .venv/bin
# Neighbouring tests run in one process, which then compiles their programs once.
EACH_TEST := $(BIN)/pytest --numprocesses auto --dist worksteal
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

# Where this variable is set, each new process compiles JAX to bytecode again, which takes 7 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help figures figure draw test test-matrix test-lanes test-claims test-seeds docs site benchmark benchmark-gpu clean

# Plain `make` prints what follows `##` behind each target below.
help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'Add PYTHON=python3.13 to set up .venv with that Python.'

# The pages of figures/ and the table of the README follow the figures, even if one has failed.
define each
	@status=0; $(BIN)/toymodels figures $(1) $(EXPERIMENTS) || status=$$?; \
	{ $(BIN)/toymodels claims figures README.md || test $$? -eq 3; } | tail -1; exit $$status
endef

figures: .venv/installed ## draw every figure, in about an hour
	$(call each,)

figure: .venv/installed ## draw one figure, such as NAME=phase_diagram
	$(BIN)/toymodels run $(NAME)

draw: .venv/installed ## draw the figures of an earlier `make figures` again, from its results
	$(call each,--draw)

# The first pass checks types and shapes at every call, and lets XLA optimise nothing. The second runs
# what depends on how XLA compiles, as users run it, from the files that have such tests: to collect
# the others would take seconds. One core checks the types beside the first pass.
test: .venv/installed-test ## lint, check types and run the tests, in about 20 minutes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright & types=$$!; $(EACH_TEST) --compile-quickly && wait $$types
	$(EACH_TEST) -m as_users_compile --jaxtyping-packages= $$(grep -l as_users_compile tests/test_*.py)

# Each Python takes about half an hour. `make test-matrix TESTS=tests/test_models.py` runs one file.
TESTS ?= tests
test-matrix: ## run the tests with each installed Python and with the lowest versions
	$(PYTHON) tests/matrix.py $(TESTS)

# Random programs find a loop that XLA divides into pieces that compute in another order. Try
# `make test-lanes CELLS=300` with each new version of JAX: about an hour.
CELLS ?= 30
test-lanes: .venv/installed-test ## look for last bits that depend on the place of a cell, in random programs
	RANDOM_CELLS=$(CELLS) $(EACH_TEST) tests/test_lanes.py -k random

# `make test-claims` breaks each number of the results that `make figures` has left in results/, and
# fails if it finds a claim that is not called an identity.
test-claims: .venv/installed ## look for claims that hold whatever the results are, in minutes
	$(BIN)/python tests/mutations.py

# `make test-seeds` runs the experiments that take a minute or less with other seeds, and fails if a
# claim then turns that held in figures/, or failed. It writes nothing.
test-seeds: .venv/installed ## look for claims that hold by the luck of their seeds, in an hour
	$(BIN)/python tests/other_seeds.py

# `make docs ONLINE=1` also links the names of JAX, Flax and xarray to their documentation.
docs: .venv/installed-docs | results/introduction.nc ## build the documentation
	rm -rf site
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . site
	@echo open site/index.html

site: $(addprefix results/,$(addsuffix .nc,$(shell cat docs/live.txt))) ## build the documentation with all live explorers, in 15 minutes
	$(MAKE) docs

results/%.nc: | .venv/installed
	$(BIN)/toymodels run $* --out results

benchmark: .venv/installed ## compare the speed with PyTorch and with plain JAX
	$(INSTALL) .[benchmark]
	$(BIN)/toymodels run experiments/benchmark_training.py
	$(BIN)/toymodels run experiments/benchmark_interventions.py
	$(BIN)/toymodels run experiments/benchmark_attention.py

benchmark-gpu: .venv/installed ## check and measure an NVIDIA card, in five minutes
	$(INSTALL) .[gpu]
	$(BIN)/python -c 'import jax, sys; sys.exit("JAX finds no card here" if jax.default_backend() == "cpu" else 0)'
	$(BIN)/toymodels run experiments/benchmark_gpu.py

.venv/created:
	$(PYTHON) -c 'import sys; sys.exit("toymodels needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

# Python compiles what it imports, so pip need not compile the other ten thousand files, too: that
# takes half a minute.
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable

.venv/installed: .venv/created pyproject.toml constraints.txt
	$(INSTALL) .[baselines,cluster]
	@touch $@

# What the tests need includes all that figures need.
.venv/installed-test: .venv/created pyproject.toml constraints.txt
	$(INSTALL) .[test]
	@touch .venv/installed $@

.venv/installed-docs: .venv/installed
	$(INSTALL) .[docs]
	@touch $@

# What was trained stays: results/ is not only ours.
clean: ## remove .venv and site
	rm -rf .venv site
