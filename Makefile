# Two commands do everything from a bare clone: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST_WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(PYTEST_WORKERS)

.PHONY: help install demo test browser slow lint check quick machines format clean

help:
	@echo "make demo    install, train on embedded data, evaluate, draw, say where to look"
	@echo "make test    install, run the tests"
	@echo "make browser chromium, for the test that looks at a report in it (apt-get, as root)"
	@echo "make lint    format, lint, types, import direction"
	@echo "make check   make lint, make test"
	@echo "make quick   lint, and the tests of what differs from the last commit: under a minute"
	@echo "make machines  the tests as other processors and thread counts compute them: an hour"
	@echo "make slow    the tests that train for minutes (need MNIST: NELBO_DATA=DIR)"
	@echo "make clean   remove what the other commands made (your own runs stay)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nelbo needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/nelbo train digits --runs runs --overwrite
	$(BIN)/nelbo evaluate digits-s0 --runs runs --samples 1000
	@echo
	@echo "Look at  runs/digits-s0/figures/reconstructions.png   what it keeps of an image"
	@echo "         runs/digits-s0/figures/scatter.png           its map of the digits"
	@echo "         runs/digits-s0/figures/manifold.png          the plane it draws from"
	@echo "then     $(BIN)/nelbo recipes"

test: $(STAMP)
	$(PYTEST)

browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v $$name; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium; \
	else \
		echo "no browser: install chromium, or name one in NELBO_BROWSER; without it its test is skipped"; exit 1; \
	fi

slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

quick: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python tests/quick.py

# One suite a kind of machine; the last three are decided by tests/conftest.py alone.
MACHINES := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE \
	OMP_NUM_THREADS=1 OMP_NUM_THREADS=4 NELBO_TESTS_MACHINE=onednn NELBO_TESTS_MACHINE=bf16 NELBO_TESTS_MACHINE=plain

machines: $(STAMP)
	@failed=; for machine in $(MACHINES); do \
		echo "== $$machine"; env "$$machine" $(PYTEST) || failed="$$failed $$machine"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed under:$$failed"; exit 1; fi

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

clean:
	rm -rf $(VENV) runs/digits-s0 build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
