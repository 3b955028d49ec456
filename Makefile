# Every target makes .venv when it is missing and prints what it does.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# uv installs where it is present, pip otherwise and with `make UV=`.
UV := $(shell command -v uv 2>/dev/null)
EXTRAS ?= all
# A process of tests more than there are cores, since some tests wait for servers; four at most, for each imports torch.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
PYTEST := $(BIN)/python -m pytest -q --dist=loadfile --no-loadscope-reorder

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/.installed: pyproject.toml constraints.txt
	@echo "medllm: installing into .venv with $(if $(UV),uv,pip) (pinned by constraints.txt)"
	@if [ -n "$(UV)" ]; then \
	  { test -x $(BIN)/python || "$(UV)" venv --quiet --seed --python $(PYTHON) .venv; } && \
	  "$(UV)" pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	else \
	  { test -x $(BIN)/python || $(PYTHON) -m venv .venv; } && \
	  $(BIN)/python -m pip install --quiet --upgrade pip && \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'; \
	fi
	@touch $@

test: quality ## every check and every capability's tests, the long sweeps in a short form
	@echo "medllm: running the tests; the long sweeps, client matrices and views are left to make test-all"
	@$(PYTEST) --numprocesses=$(WORKERS) -m 'not long'

test-long: .venv/.installed ## only what `make test` leaves out: long sweeps, client matrices, every view in a browser
	@echo "medllm: running the long tests"
	@$(PYTEST) --numprocesses=auto --maxprocesses=4 -m long

test-all: test test-long ## everything, as CI runs it

quality: .venv/.installed ## formatting, lint, types, import floors, fresh documents
	@echo "medllm: checking format, lint, types, import floors and generated documents"
	@$(MAKE) --no-print-directory --jobs=2 check-types check-rest

check-types:
	@$(BIN)/mypy

check-rest:
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python docs/reference.py --check

style: .venv/.installed ## format the code and regenerate what is generated
	@echo "medllm: formatting"
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python docs/reference.py

quickstart: .venv/.installed ## run the paper in miniature, truly trained, in five to ten minutes on two cores
	@echo "medllm: the paper in miniature, in quickstart/ (Ctrl-C stops it; run again, it goes on)"
	@$(BIN)/medllm quickstart

golden: .venv/.installed ## make the recorded results of the miniature again, for all rows and seeds
	@echo "medllm: training every row of the miniature's table on three seeds; this takes long"
	@$(BIN)/python docs/golden.py

app: .venv/.installed ## show the recorded results as a page in the browser
	@echo "medllm: opening the page on http://127.0.0.1:7860 (Ctrl-C ends it)"
	@$(BIN)/medllm app --open

# What each benchmark needs: some read the exam data, one a base model (make bench BASE=FOLDER), and for
# vLLM or another server (ENDPOINT=http://127.0.0.1:8000/v1) the folder of the two adapters that it serves (ADAPTERS=).
DATA ?= $(or $(MEDLLM_SHARED_DATA),../shared/data)
BASE ?=
# huggingface_hub's own tests against the embedded Hub: a checkout of theirs, and a Python that has the same release.
SUITE ?=
CLIENT ?= $(BIN)/python
SERVER := $(if $(ADAPTERS),--adapters "$(ADAPTERS)") $(if $(ENDPOINT),--endpoint "$(ENDPOINT)")
ASKING := corpus duplicates generation hub_suite real_run shapes
BENCH := $(filter-out $(ASKING),$(basename $(notdir $(wildcard benchmarks/*.py))))

bench: .venv/.installed ## run the benchmarks and print their figures (DATA=exam data, BASE=a model folder)
	@if command -v nvidia-smi >/dev/null; then \
	  for what in 0.5B 7B "72B --layers 8 --quantization nf4" "72B --layers 16 --quantization nf4"; do \
	    echo "medllm: benchmarks/shapes.py $$what"; $(BIN)/python benchmarks/shapes.py Qwen/Qwen2.5-$$what || exit 1; done; \
	else echo "medllm: no GPU here: shapes.py (seconds and memory of a training's update) is left out"; fi
	@for name in $(BENCH); do echo "medllm: benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@if [ -d "$(DATA)" ]; then \
	  for what in make audit stage; do echo "medllm: benchmarks/corpus.py $$what"; \
	    $(BIN)/python benchmarks/corpus.py $$what --data "$(DATA)" --work runs/bench || exit 1; done; \
	  echo "medllm: benchmarks/duplicates.py"; \
	  $(BIN)/python benchmarks/duplicates.py --data "$(DATA)" --work runs/bench/duplicates || exit 1; \
	else echo "medllm: no exam data at $(DATA): corpus.py and duplicates.py are left out (make bench DATA=...)"; fi
	@if [ -n "$(BASE)" ] && [ -d "$(DATA)" ]; then \
	  echo "medllm: benchmarks/generation.py"; \
	  $(BIN)/python benchmarks/generation.py "$(BASE)" "$(DATA)/igakuqa" $(SERVER) || exit 1; \
	  echo "medllm: benchmarks/real_run.py"; \
	  $(BIN)/python benchmarks/real_run.py "$(BASE)" "$(DATA)" runs/bench/real --set cpt.max_steps=2 \
	    --set preferences.questions=4 --set rpo.max_steps=2 --set merge.parity_questions=2 --set evaluate.limit=2; \
	else echo "medllm: generation.py and real_run.py are left out: name a model folder (make bench BASE=...)"; fi
	@if [ -n "$(SUITE)" ]; then \
	  echo "medllm: benchmarks/hub_suite.py"; $(BIN)/python benchmarks/hub_suite.py "$(SUITE)" --python "$(CLIENT)"; \
	else echo "medllm: hub_suite.py is left out: name a checkout of huggingface_hub (make bench SUITE=... CLIENT=its Python)"; fi

gpu-report: .venv/.installed ## check and measure everything that needs GPUs, into runs/gpu-report.json
	@$(BIN)/python tools/gpu_report.py

.PHONY: help quickstart golden test test-long test-all quality check-types check-rest style app bench gpu-report
