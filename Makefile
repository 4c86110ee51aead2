# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# torch first and by itself: where the package index offers several builds, the pin decides.
TORCH = $(shell grep '^torch==' constraints.txt)
# Files of tests are dealt to processes: what a file has set up stays with it. In their own order: by default those
# with the fewest tests come last, which here are the longest, and one process would wait for the other.
AT_ONCE = --dist loadfile --no-loadscope-reorder

.PHONY: install demo demo-domains test test-slow faults check format bench bench-peers screenshots image-check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  # ARGS=--no-flow runs it without Prefect
	@$(BIN)/python -m stockpot.demo $(ARGS)

demo-domains: install
	@$(BIN)/python -m stockpot.demo.domains

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet -m "not slow" tests/e2e/test_docker.py  # image, compose and pools, offline

test: check
	$(BIN)/pytest -n 2 $(AT_ONCE) -m "not slow"

test-slow: install  # three on two cores: they wait much, for servers, leases and automations
	$(BIN)/pytest -n 3 $(AT_ONCE) -m slow

faults: install  # ARGS=--trials 100; what is done is kept in .faults, and the next call goes on from there
	$(BIN)/python -m tests.faults.harness $(ARGS)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  # ARGS=--save keeps the figures for this version
	$(BIN)/python -m tests.benchmarks.run $(ARGS)

bench-peers: install
	$(BIN)/python -m tests.benchmarks.peers $(ARGS)

screenshots: install  # the README's pictures, by a Chromium; needs Debian's package chromium, or TEST_CHROMIUM
	STOCKPOT_SCREENSHOTS=registry/stockpot/demo $(BIN)/pytest -m slow tests/e2e/test_in_a_browser.py -k picture

image-check:  # ARGS go to buildah
	docker/check-image $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
