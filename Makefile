# `make figures` and `make test` do all set-up; they need Python 3.11 or newer and make.
# `make figures PYTHON=python3.13` does it with that Python.

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

.PHONY: figures figure draw test test-matrix test-lanes test-claims docs site benchmark benchmark-gpu clean

# The pages of figures/ and the table of the README follow the figures, even if one has failed.
define each
	@status=0; $(BIN)/toymodels figures $(1) $(EXPERIMENTS) || status=$$?; \
	{ $(BIN)/toymodels claims figures README.md || test $$? -eq 3; } | tail -1; exit $$status
endef

figures: .venv/installed
	$(call each,)

# `make figure NAME=phase_diagram` makes one.
figure: .venv/installed
	$(BIN)/toymodels run $(NAME)

# Claims and figures again, from the results of an earlier `make figures`.
draw: .venv/installed
	$(call each,--draw)

# The first pass checks types and shapes at every call, and lets XLA optimise nothing. The second runs
# what depends on how XLA compiles, as users run it.
test: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(EACH_TEST) --compile-quickly
	$(EACH_TEST) -m as_users_compile --jaxtyping-packages=

# The tests with each Python that is installed, and with the lowest versions of the bounds. It takes
# about half an hour for each. `make test-matrix TESTS=tests/test_models.py` runs one file.
TESTS ?= tests
test-matrix:
	$(PYTHON) tests/matrix.py $(TESTS)

# Random programs, to find a loop that XLA divides into pieces that compute in another order. Try
# `make test-lanes CELLS=300` with each new version of JAX: about an hour.
CELLS ?= 30
test-lanes: .venv/installed-test
	RANDOM_CELLS=$(CELLS) $(EACH_TEST) tests/test_lanes.py -k random

# Which claims hold whatever the results are? This breaks each number of the results that `make figures`
# has left in results/. It takes minutes, and fails if it finds one that is not called an identity.
test-claims: .venv/installed
	$(BIN)/python tests/mutations.py

# `make docs ONLINE=1` also links the names of JAX, Flax and xarray to their documentation.
docs: .venv/installed-docs | results/introduction.nc
	rm -rf site
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . site
	@echo open site/index.html

# One explorer of the documentation is quick to make; `make site` makes the others, too. Their
# experiments take about a quarter of an hour, once.
site: $(addprefix results/,$(addsuffix .nc,$(shell cat docs/live.txt)))
	$(MAKE) docs

results/%.nc: | .venv/installed
	$(BIN)/toymodels run $* --out results

benchmark: .venv/installed
	$(INSTALL) .[benchmark]
	$(BIN)/toymodels run experiments/benchmark_training.py
	$(BIN)/toymodels run experiments/benchmark_interventions.py
	$(BIN)/toymodels run experiments/benchmark_attention.py

# On a computer with an NVIDIA card: are the numbers right there, and how fast? Five minutes.
benchmark-gpu: .venv/installed
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
clean:
	rm -rf .venv site
