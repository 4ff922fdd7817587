# Sets up .venv and runs. Needed before: Python 3.11 or newer with venv and pip, and make.
PY ?= python3
DEMO ?= fast,demo
TEST ?= all,demo,test,oracle,browser
# A machine without a registry: make demo OFFLINE=1 DEMO=test, with the missing wheels in wheels/.
ifdef OFFLINE
VENVFLAGS := --system-site-packages
PIPFLAGS := --no-index --find-links wheels --no-build-isolation
endif
BIN := .venv/bin
# Added up from pip's report (pip install --dry-run --report) with the CPU build of torch, 183 of them.
MIB_$(TEST) := 632
MIB = $(or $(MIB_$*),300)

.PHONY: demo test lint bench docs clean

.venv/bin/python:
	$(PY) -m venv $(VENVFLAGS) .venv

.venv/.ok-%: pyproject.toml | .venv/bin/python
	@echo "installing opendino[$*] and what it needs into .venv: downloads about $(MIB) MiB, or over 2,600 where pip takes the CUDA build of torch (Linux, by default)"
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIPFLAGS) -e ".[$*]"
	touch $@

demo: .venv/.ok-$(DEMO)
	$(BIN)/opendino demo

test: .venv/.ok-$(TEST)
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.ok-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/.ok-$(TEST)
	$(BIN)/python -m benchmarks.ssl_step
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.baselines

docs: .venv/.ok-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache
