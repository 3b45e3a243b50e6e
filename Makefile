# make demo   transcribe the shipped clips through the Hugging Face pipeline, encoder on the default device
# make test   ruff, mypy, import-linter and the whole test-suite, in another order each time; the seed that is printed repeats it:
#             make test SEED=123 JOBS=4
# make docs   API pages of the public names, into docs/api
# make matrix a quick part of the suite with the oldest and the newest torch and transformers that pyproject.toml allows
# make bench  pytest-benchmark's tables per layer, all of them or SELECT="base and fc1"
# make tables all of benchmarks/results: measured on this machine (leave it alone meanwhile) and modelled, with
#             OpenVINO and CTranslate2 where they install; make tables TABLES=--quick to try it
# All but matrix create the environment in .venv first. PYTHON picks the interpreter (3.10 or newer); TORCH picks the build of
# torch (any of the range in pyproject.toml works; on x86-64 without an index of CPU builds pip takes the CUDA one, which is large but fine).

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
SEED ?= default

.PHONY: demo test matrix lint format docs bench tables clean

demo: $(VENV)/.installed
	$(BIN)/python -m torch_xdna.speech.demo

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --randomly-seed=$(SEED) --durations 12

matrix:
	$(PYTHON) tests/matrix.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python docs/api.py docs/api

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks -k "$(SELECT)" --benchmark-only --benchmark-group-by=group \
		--benchmark-columns=median,iqr,rounds

tables: $(VENV)/.bench
	$(BIN)/python benchmarks/tables.py $(TABLES)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# torch first and alone: its requirement decides which build comes, not another package's.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Made anew whenever the packages are missing: without them the tables say "not installed".
$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[bench]" && touch $@ || echo "going on without them"
