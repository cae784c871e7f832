# Two commands for a new user: `make demo` hears it, `make test` tries it all.
# Each makes its own virtual environment in .venv the first time.

PYTHON ?= python3
BIN := .venv/bin
TEST_ARGS ?=

.PHONY: demo test lint wheel clean bench bench-quick bench-long bench-gate report

demo: .venv/.runtime
	$(BIN)/rtsep demo -o demo-out

test: .venv/.dev
ifeq ($(TEST_ARGS),)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not realtime" -n auto --dist worksteal
	$(BIN)/python -m pytest -m realtime
else
	$(BIN)/python -m pytest $(TEST_ARGS)
endif

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: .venv/.dev
	$(BIN)/python -m pip wheel --no-deps -w dist .

# What is measured stands in benchmarks/results; docs/performance.md is made from it.
bench-quick: .venv/.dev
	$(BIN)/python -m benchmarks run --quick

bench: .venv/.dev
	$(BIN)/python -m benchmarks run --full

# MINUTES of each of five kinds of load.
MINUTES ?= 30
bench-long: .venv/.dev
	$(BIN)/python -m benchmarks run --long --minutes $(MINUTES)

bench-gate: .venv/.dev
	$(BIN)/python -m benchmarks gate

report: .venv/.dev
	$(BIN)/python -m benchmarks report

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch is pinned by constraints.txt and never needed by the demo.
.venv/.runtime: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,dev]'
	touch $@ .venv/.runtime

clean:
	rm -rf .venv dist demo-out
