# `make demo` and `make test` work on a fresh clone: both fill one .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that share the tests; each needs some GB of memory.
WORKERS ?= 2

.PHONY: all venv demo test test-all sanitize check format docs bench clean

all: check test

venv: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt tools/install.sh $(wildcard src/qontext/native/src/*)
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/install.sh
	@touch $(STAMP)

demo: venv
	$(BIN)/qontext fill-mask "The capital of France, [MASK], contains the Eiffel Tower."

test: venv
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not gpu and not network and not alone"
	$(BIN)/python -m pytest -m "alone and not slow and not gpu and not network"

test-all: venv
	$(BIN)/python -m pytest -m "not network"

# On a machine with an NVIDIA GPU: reads and writes outside memory, of attention and linear kernels.
sanitize: venv
	compute-sanitizer --tool memcheck --target-processes all --error-exitcode 9 $(BIN)/python -m pytest -n $(WORKERS) -m gpu -p no:benchmark \
		tests/conformance/test_gpu_ops.py -k "(attention or linear) and float16 and not sdpa and not bfloat16"

check: venv
	$(BIN)/ruff format --check src tests bench examples training setup.py
	$(BIN)/ruff check src tests bench examples training setup.py
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/structure

format: venv
	$(BIN)/ruff format src tests bench examples training setup.py
	$(BIN)/ruff check --fix src tests bench examples training setup.py

docs: venv
	$(BIN)/python -m qontext.ops.docs
	$(BIN)/python -m qontext.fusion.docs
	$(BIN)/python -m qontext.report.operator_pages
	$(BIN)/python examples/transformer_blocks/write.py
	$(BIN)/python -m qontext.benchmark.page

bench: venv
	$(BIN)/python bench/encoders.py --output bench/results

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
