# One command each; `make help` lists them. Nothing but Python 3.11, git and make is needed beforehand.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PAGES := plugins/mlops_ui
NODE_STAMP := $(PAGES)/node_modules/.package-lock.json

# What `make up` runs on; an empty one leaves what the last `make up` chose (at first: the synthetic market).
# Not `?=`: a variable TEST or NAME that happens to be in the environment is not meant.
SOURCE =
UNIVERSE =
TRAIN =
VALID =
TEST =
PROFILE =
NAME =
# TORCH=cuda takes torch's CUDA build, with its packages (3.4 GB).
TORCH =
# CHAIN=0 starts the services and does not run the chain.
CHAIN ?= 1
SLOW ?=
# Workers take whole files, in the order in which they are collected: the longest first (tests/conftest.py). They are three
# for two cores, since tests that ask a service or a process wait for a quarter of their time.
WORKERS = 3
test-fast: WORKERS = 2
PYTEST = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help env up down status test tests test-fast screenshots lint format lock licences bench
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## make the environment, once, and compile the kernels for this processor
	@$(RUN) -m mlops_tasks compile

$(STAMP): requirements.txt pyproject.toml $(wildcard include/supply_chain/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is needed, and $(PYTHON) is not it: install it, or say where it is: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { \
	  echo "could not make $(VENV); on Debian and Ubuntu: apt-get install python3.11-venv"; rm -rf $(VENV); exit 1; }
	@echo "installing $$(grep -c == requirements.txt) packages into $(VENV); this takes some minutes, once"
	@$(RUN) -m mlops_tasks.supply_chain.install $(if $(filter cuda,$(TORCH)),--cuda)
	@$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@$(RUN) -m compileall -q mlops_tasks plugins dags
	@echo "the command line is $(CURDIR)/bin/alphaops; it works from any folder, and by a link to it"
	@touch $@

# What checks the pages' scripts and the pages themselves; nothing that runs needs it.
$(NODE_STAMP): $(PAGES)/package.json $(PAGES)/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing, which the checks of the pages need; on Debian and Ubuntu: apt-get install npm"; exit 1; }
	cd $(PAGES) && npm ci --no-fund --no-audit
	@touch $@

up: env  ## start everything and run one day: SOURCE= UNIVERSE= TRAIN=first:last VALID= TEST= PROFILE=celery CHAIN=0
	@$(RUN) -m mlops_tasks.stack up --source="$$SOURCE" --universe="$$UNIVERSE" \
	  --train="$$TRAIN" --valid="$$VALID" --test="$$TEST" --profile="$$PROFILE" $(if $(filter 0,$(CHAIN)),--no-chain)

down:  ## end every process that `make up` started
	@if test -x $(RUN); then $(RUN) -m mlops_tasks.stack down; else echo "nothing was ever started here"; fi

status:  ## how each service is
	@if test -x $(RUN); then $(RUN) -m mlops_tasks.stack status; else echo "nothing was ever started here: make up"; fi

test: env lint tests  ## every check and test; SLOW=1 with the long ones

tests: env $(NODE_STAMP)  ## every test; SLOW=1 with the long ones
	$(RUN) -m pytest $(PYTEST) --durations=10 $(if $(SLOW),,-m "not slow")

test-fast: env lint  ## lint, and the tests that need no server, browser, process or simulation: for the hand
	$(RUN) -m pytest $(PYTEST) -q --fast -m "not slow"

screenshots: env  ## take the pictures of the pages for docs/pages.md anew
	SCREENSHOTS=1 $(RUN) -m pytest -q tests/e2e/test_chain.py -k "leads_from_bars or takes_its_form or days_work"

lint: env $(NODE_STAMP)  ## style, types, layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	node $(PAGES)/node_modules/typescript/bin/tsc -p $(PAGES)

format: env  ## write the style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock:  ## write requirements.txt, with hashes, and the licences from what is installed, after pip check
	$(RUN) -m pip check
	$(RUN) -m mlops_tasks.supply_chain.lock
	@$(MAKE) licences

licences:  ## write docs/licences.md from what is installed
	$(RUN) -m mlops_tasks.supply_chain.licences

bench: env  ## NAME=<name>: one benchmark against its peer; without a name, their list
	@$(RUN) -m tests.benchmarks $(NAME)
