# The first call of any target creates .venv, which takes a few minutes.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHON
export HF_HUB_OFFLINE ?= 1

.PHONY: help venv lint test test-gpu soak demo fuzz clean

help:
	@echo "make demo       the whole pipeline on the toy world, CPU or GPU"
	@echo "make test       lint and tests"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make soak       kills, signals, cut networks and 500 steps: hours; SOAK_MOMENTS=2 is shorter"
	@echo "make fuzz       200,000 mutated answers against the reward"
	@echo "make lint       ruff and mypy"

venv:
	@bash training_scripts/setup/create_venv.sh

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

test: lint
	$(PY) -m pytest

test-gpu: venv
	$(PY) -m pytest -m gpu

soak: venv
	$(PY) -m pytest -m soak

demo: venv
	$(PY) -m training_scripts.demo

fuzz: venv
	$(PY) -m tests.fuzz_reward --strings 200000

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache *.egg-info
