# The two commands that matter are `make demo` and `make test`; both set up .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PY := .venv/bin/python
# A test that hangs prints every stack and ends the run.
PYTEST := $(PY) -m pytest -o faulthandler_exit_on_timeout=true
LINTED := mmd tests bench scripts

PREFIX ?= /usr
DESTDIR ?=

.PHONY: help venv demo test test-all test-slow foreign lint format bench lock install clean

help:
	@printf '%s\n' \
	  'make demo      quote a recorded option chain in the sandbox, until Ctrl-C' \
	  'make test      lint, types and the quick tests' \
	  'make test-all  every test, those that take half an hour as well' \
	  'make bench     measure the hot path, start, memory and reload' \
	  'make venv      set up .venv from requirements.lock' \
	  'make lint      ruff and mypy         make format  let ruff rewrite' \
	  'make lock      write requirements.lock anew' \
	  'make install   install under DESTDIR and PREFIX (root: systemd units, /etc/mmd)' \
	  'make clean     remove what the above made'

venv:
	@scripts/setup.sh

demo: venv
	@.venv/bin/mmd demo

lint: venv
	@$(PY) -m ruff check $(LINTED)
	@$(PY) -m ruff format --check --quiet $(LINTED)
	@$(PY) -m mypy --no-error-summary

test: lint
	@$(PYTEST) -m 'not slow' -o faulthandler_timeout=120

# Status 5 is pytest's word for "no test selected": a tree without slow tests is no failure.
test-slow: venv
	@$(PYTEST) -m 'slow and not judgement' -o faulthandler_timeout=1200 -rs || test $$? -eq 5

# Clients that this project did not write, in an environment of their own.
foreign: venv
	@scripts/foreign.sh

test-all: lint foreign
	@$(PYTEST) -o faulthandler_timeout=3600 -rs

format: venv
	@$(PY) -m ruff check --fix --quiet $(LINTED)
	@$(PY) -m ruff format --quiet $(LINTED)

bench: venv
	@$(PY) -m bench

lock: venv
	@scripts/lock.sh

install:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" packaging/install.sh

clean:
	rm -rf .venv .venv-foreign build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find mmd tests bench scripts -name __pycache__ -type d -exec rm -rf {} +
