# Every target makes what it needs: the first call builds .venv from requirements/lock.txt, later ones do nothing.
# Variables: PYTHON=python3.12 (3.11 or newer), TORCH=own (use the torch and torchvision that PYTHON has),
#            DATA=folder (small, gpu, paper), JOBS=2 (test; every core), ARGS='-k name' (test, lab), CONFIRM=1 (clean-runs), UPGRADE=1 (lock), TAG=1 (release)

OUTER_PATH := $(PATH)
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed
JOBS ?= auto

# Stages and notebooks find the environment's own commands, print as they go and call nobody.
export PATH := $(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
export DVC_NO_ANALYTICS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Nor does every process compile torch anew, where bytecode is not kept.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install repro test lab report docs stale release publish same-digits small gpu paper presets lock hooks clean clean-runs again

help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile
	@sed -n '2,3s/^# //p' Makefile

install: $(STAMP) ## .venv with the locked packages (TORCH=own: with the torch you already have)

# Saying another TORCH or PYTHON than the last install's is a reason to install again.
LAST := $(shell cat $(STAMP) 2>/dev/null)
ifneq ($(LAST),)
ifneq ($(or $(TORCH),$(word 1,$(LAST))) $(or $(PYTHON),$(word 2,$(LAST))),$(LAST))
$(STAMP): again
endif
endif
$(STAMP): pyproject.toml requirements/lock.txt requirements/uv.txt requirements/install.sh requirements/pins.py
	@PATH='$(OUTER_PATH)' PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh requirements/install.sh

repro: $(STAMP) ## train and report on the embedded data: the whole sample pipeline
	@$(BIN)/dvc pull data.dvc
	@$(BIN)/dvc repro
	@echo 'The report: runs/sample/notebooks/04-verdict.html'

test: $(STAMP) ## the whole test suite, notebooks included
	@$(BIN)/dvc pull data.dvc
	@env $$($(BIN)/python -m bnc_repro environment) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lab: $(STAMP) ## JupyterLab on the notebooks
	@$(BIN)/dvc pull data.dvc
	@env $$($(BIN)/python -m bnc_repro environment) $(BIN)/jupyter lab --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(ARGS) notebooks

report: $(STAMP) ## every page anew from the published rows, nothing trained (a minute or two): runs/sample/report
	@$(BIN)/dvc pull data.dvc
	@$(BIN)/python -m bnc_repro report

docs: $(STAMP) ## the site, from committed outputs and docstrings: build/site (ARGS='-b linkcheck': follow its links instead)
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs $(ARGS) . build/site
	@echo 'The site: build/site/docs/index.html'

release: $(STAMP) ## wheel, sdist and Zenodo's archive in dist/, checked, from a clean tree (TAG=1: then the tag)
	@$(BIN)/python tools/release.py $(if $(TAG),--tag)

stale: $(STAMP) ## name what pages say that their rows do not, and rows of other code than today's
	@$(BIN)/python -m bnc_repro stale

publish: $(STAMP) ## copy finished rows from runs/ to results/
	@$(BIN)/python -m bnc_repro publish

same-digits: $(STAMP) ## prove that an edit changed no number, and join old and new code in results/equivalent.csv (DATA=folder: small too)
	@$(BIN)/dvc pull data.dvc
	@$(if $(DATA),BNC_DATA='$(abspath $(DATA))') $(BIN)/python -m bnc_repro same-digits $(ARGS)

small gpu paper: $(STAMP) ## the same on real data in DATA=folder: two cores, one GPU, every GPU of the machine
	@$(if $(DATA),BNC_DATA='$(abspath $(DATA))') $(BIN)/dvc repro pipelines/$@/dvc.yaml

presets: $(STAMP) ## the ablation's arms and presets on the sample, 20 seeds each (about half an hour)
	@$(BIN)/dvc pull data.dvc
	@$(BIN)/dvc repro pipelines/presets/dvc.yaml

# The first line resolves, the second pins the resolver itself, the third writes the same pins for conda.
COMPILE = UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--fork-strategy fewest --no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
lock: ## pin again: requirements/ and environment.yml from pyproject.toml (UPGRADE=1: the newest of everything)
	@test -x $(BIN)/uv || $(MAKE) install
	$(COMPILE) --all-extras --group build --output-file requirements/lock.txt pyproject.toml
	echo uv | $(COMPILE) --no-annotate --output-file requirements/uv.txt -
	$(BIN)/python requirements/pins.py environment > environment.yml

hooks: $(STAMP) ## git: pre-commit checks, readable notebook diffs
	@$(BIN)/pre-commit install
	@$(BIN)/nbdime config-git --enable

clean: ## remove caches and executed notebooks; data, rows and checkpoints stay
	rm -rf .pytest_cache .ruff_cache build dist runs/*/notebooks
	find . -path ./.venv -prune -o -path ./.git -prune -o \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

clean-runs: ## remove runs/ with its rows and checkpoints (says what; CONFIRM=1 does it)
	@test -d runs || { echo 'There is no runs/.'; exit 0; }; du -h -d 2 runs; \
	if [ '$(CONFIRM)' = 1 ]; then rm -rf runs && echo 'removed'; \
	else echo 'Nothing removed: make clean-runs CONFIRM=1 removes these runs, unpublished rows among them.'; exit 1; fi
