# Every target makes .venv when it is missing and says what it does.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/.installed: pyproject.toml constraints.txt
	@echo "medllm: installing into .venv (pinned by constraints.txt)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]'
	@touch $@

test: .venv/.installed quality ## run every check and every test
	@echo "medllm: running the tests"
	@$(BIN)/python -m pytest

quality: .venv/.installed ## formatting, lint, types, import floors, fresh documents
	@echo "medllm: checking format, lint, types, import floors and generated documents"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python docs/reference.py --check

style: .venv/.installed ## format the code and regenerate what is generated
	@echo "medllm: formatting"
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python docs/reference.py

app: .venv/.installed ## show the recorded results as a page in the browser
	@echo "medllm: opening the page on http://127.0.0.1:7860 (Ctrl-C ends it)"
	@$(BIN)/medllm app --open

bench: .venv/.installed ## run every benchmark and print its figures
	@for script in benchmarks/*.py; do \
	  echo "medllm: $$script"; $(BIN)/python $$script || exit 1; \
	done

.PHONY: help test quality style app bench
