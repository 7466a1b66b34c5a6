# The first call of any target creates .venv, which takes a few minutes.
PYTHON ?= python3
PY := .venv/bin/python
APP := .venv-app/.installed
export PYTHON
export HF_HUB_OFFLINE ?= 1
TEST_PROCESSES ?= 2

.PHONY: help venv lint test test-gpu soak demo fuzz configuration docs clean

help:
	@echo "make demo       the whole pipeline on the toy world, CPU or GPU"
	@echo "make test       lint and tests"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make soak       kills, signals, cut networks and 500 steps: hours; SOAK_MOMENTS=2 is shorter"
	@echo "make fuzz       200,000 mutated answers against the reward"
	@echo "make lint       ruff and mypy"
	@echo "make configuration   docs/configuration.md from the configuration's dataclasses"
	@echo "make docs       the documentation as a site, in site/"

venv:
	@bash training_scripts/setup/create_venv.sh

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Gradio for the tests of `veason app`, in its own folder: .venv stays as its lock has it. tests/veason/app finds it.
$(APP): requirements-app.lock | venv
	@rm -rf .venv-app
	@$(PY) -m pip --disable-pip-version-check install --quiet --no-deps --target .venv-app \
		-r requirements-app.lock >> .venv/pip.log 2>&1 || { tail -n 30 .venv/pip.log >&2; exit 1; }
	@touch $@

# With `make -j 2` ruff and mypy run beside the installation of Gradio.
# A file of tests runs in one of the processes, each of which has a core for itself. tests/conftest.py orders the files.
test: lint $(APP)
	MAKEFLAGS= OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations=25

test-gpu: venv
	$(PY) -m pytest -m gpu

soak: venv
	$(PY) -m pytest -m soak

demo: venv
	$(PY) -m training_scripts.demo

fuzz: venv
	$(PY) -m tests.fuzz_reward --strings 200000

configuration: venv
	$(PY) -m training_scripts.configuration_page

docs: venv
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

clean:
	rm -rf .venv .venv-app site .pytest_cache .ruff_cache .mypy_cache *.egg-info
