# Reproducible report on a treatment-response skin-microbiome study. `make` explains itself.
#
# STUDY  a folder in data/                              make report STUDY=khadka2021
# SET    parameters of this run, checked before it      make report SET="permutations=9999 alpha=0.01"
# AGAINST an earlier run to compare with                make report AGAINST=copy-of-reports/demo
# NAME   a new study, drafted from its files            make study NAME=mycohort TABLE=table.qza METADATA=metadata.tsv
# PYTHON the interpreter, if not the project's own      make report PYTHON=python

STUDY ?= demo
SET ?=
AGAINST ?=
PYTHON = .venv/bin/python
RUNS = 500
CASES = 50000

MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
endif
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The same numbers on every machine: one thread a process, one order of hashing. Kernels of this environment only.
export STUDY SET AGAINST
export PYTHONHASHSEED = 0
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export NUMEXPR_NUM_THREADS = 1
export VECLIB_MAXIMUM_THREADS = 1
export JUPYTER_PREFER_ENV_PATH = 1
# Some machines forbid cached bytecode; without it, importing takes half of a notebook's time.
export PYTHONDONTWRITEBYTECODE =
export PYDEVD_DISABLE_FILE_VALIDATION = 1

OUT := reports/$(STUDY)
PAGE := $(OUT)/html/index.html
STEP := $(PYTHON) -m helpers
RAN := $(OUT)/notebooks
EVERY := 01_ingest 02_diversity 03_taxa 04_response 05_treatment_comparison
SITE_CODE := $(wildcard $(addprefix src/helpers/site/,*.py theme/* pages/*.py pages/*.j2 pages/*.bib pages/*.yaml) data/demo/validation.tsv)
ASIDE := %/site/pdf.py %/site/archive.py %/run/lock.py
HELPERS := $(filter-out $(SITE_CODE) $(ASIDE),$(wildcard src/helpers/*.py src/helpers/run/*.py))

ifneq ($(words $(STUDY))$(findstring /,$(STUDY))$(filter . ..,$(STUDY)),1)
$(error STUDY is "$(STUDY)"; expected the name of a folder in data/: $(patsubst data/%/study.yaml,%,$(wildcard data/*/study.yaml)))
endif
ifneq ($(filter report share pdf check,$(MAKECMDGOALS)),)
ifeq ($(wildcard data/$(STUDY)/study.yaml),)
$(error there is no data/$(STUDY)/study.yaml; studies: $(patsubst data/%/study.yaml,%,$(wildcard data/*/study.yaml)))
endif
endif

ifneq ($(filter study,$(MAKECMDGOALS)),)
# Only what stands on the command line (a machine may have its own NAME), and as it stands there: `$$` is not expanded.
DRAFTED := NAME TABLE METADATA TAXONOMY TREE
$(foreach v,$(DRAFTED),$(eval override $(v) := $(if $(filter command,$(origin $(v))),$$(value $(v)))))
$(foreach v,NAME TABLE METADATA,$(if $(strip $(value $(v))),,$(error $(v) is not given; expected \
make study NAME=mycohort TABLE=counts METADATA=metadata.tsv [TAXONOMY=file] [TREE=file])))
export $(DRAFTED)
endif

.PHONY: help study check report report-alone share pdf test reference data validate bench fuzz clean lock environment FORCE

help: ## this list
	@echo 'make <target> [STUDY=demo] [SET="parameter=value ..."] [PYTHON=.venv/bin/python]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- environment

# .venv from requirements.lock, by uv where there is one, else by pip; or, with PYTHON=, whatever that one has.
# One make at a time: the shell and what it starts hold a lock.
INSTALLED := .venv/.installed
ifneq ($(PYTHON),.venv/bin/python)
INSTALLED :=
endif

$(INSTALLED): requirements.lock pyproject.toml $(if $(wildcard .venv/bin/python),,FORCE)
	@set -e; \
	for python in python3 python3.14 python3.13 python3.12 python3.11 none; do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	exec 9<requirements.lock; [ $$python = none ] || "$$python" -P src/helpers/run/lock.py <&9; \
	if [ -e $@ ] && .venv/bin/python -c '' 2>/dev/null; then \
	  [ requirements.lock -nt $@ ] || [ pyproject.toml -nt $@ ] || exit 0; \
	else \
	  if [ $$python = none ]; then \
	    echo "Python 3.11 or newer (with its venv module) is needed, and not on PATH." >&2; exit 1; \
	  fi; \
	  echo "Making .venv with $$($$python --version)"; rm -rf .venv; $$python -m venv .venv; \
	fi; \
	.venv/bin/python -c 'import pip' 2>/dev/null || .venv/bin/python -m ensurepip >/dev/null; \
	pip=".venv/bin/python -m pip --quiet --disable-pip-version-check"; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
	  sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.txt; \
	  $$pip install --require-hashes -r .venv/uv.txt && uv=.venv/bin/uv; \
	fi; \
	echo "Installing requirements.lock into .venv (some minutes on a slow line)"; \
	{ [ "$$uv" ] && "$$uv" pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock; } \
	  || $$pip install --require-hashes -r requirements.lock; \
	$$pip install --no-deps --no-build-isolation -e .; \
	touch $@

HAS_HELPERS = $(PYTHON) -c 'import helpers' 2>/dev/null || { echo "$(PYTHON) has no package helpers. Install it:" \
  "$(PYTHON) -m pip install --no-deps --no-build-isolation -e ." >&2; exit 1; }

environment: $(INSTALLED)
	@$(HAS_HELPERS)

# ---------------------------------------------------------------- report

# One make at a time works on a study: alone.py waits for the other, and clears up after one that was killed.
ALONE = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(PYTHON) -P src/helpers/run/lock.py $(OUT))

report: $(INSTALLED) ## run the notebooks that changed, build reports/<study>/html
	@$(ALONE) $(MAKE) --no-print-directory report-alone

report-alone: $(PAGE)
	@$(if $(BUILT),s=$$(($$(date +%s) - $(BEGAN))); \
	  echo "Report: $(PAGE) (built in $$((s / 60)) min $$((s % 60)) s)",echo "$(PAGE) is up to date")

BEGAN := $(shell date +%s)

# What was given this time; each file changes only if that did.
$(OUT)/.set $(OUT)/.against: $(OUT)/.%: FORCE
	@mkdir -p $(@D); given=$$(printf '%s' "$(if $(filter set,$*),$$SET,$$AGAINST)"); \
	  printf '%s\n' "$$given" | cmp -s - $@ || printf '%s\n' "$$given" > $@

# Which files a study has, study.yaml says: the check writes that down for make.
-include $(OUT)/inputs.mk
$(OUT)/.inputs: FORCE
	@mkdir -p $(@D); cat $(INPUTS) 2>/dev/null </dev/null | cksum > $@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(OUT)/parameters.yaml: data/$(STUDY)/study.yaml $(OUT)/.set $(OUT)/.inputs requirements.lock \
  $(wildcard src/helpers/study.py src/helpers/run/parameters.py) | $(INSTALLED)
	@$(HAS_HELPERS)
	@$(STEP) check "$$STUDY" --set="$$SET"
	@$(MAKE) --no-print-directory --silent $(OUT)/.inputs && touch $@ # now that inputs.mk is known

NEEDS = $(OUT)/parameters.yaml $(HELPERS) | $(INSTALLED)

$(RAN)/01_ingest.ipynb: notebooks/01_ingest.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" 01_ingest
$(RAN)/02_diversity.ipynb: notebooks/02_diversity.ipynb $(RAN)/01_ingest.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" 02_diversity
$(RAN)/03_taxa.ipynb: notebooks/03_taxa.ipynb $(RAN)/01_ingest.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" 03_taxa
$(RAN)/04_response.ipynb: notebooks/04_response.ipynb $(RAN)/02_diversity.ipynb $(RAN)/03_taxa.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" 04_response
$(RAN)/05_treatment_comparison.ipynb: notebooks/05_treatment_comparison.ipynb $(RAN)/02_diversity.ipynb \
  $(RAN)/03_taxa.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" 05_treatment_comparison

$(PAGE): $(EVERY:%=$(RAN)/%.ipynb) $(SITE_CODE) $(OUT)/.against $(wildcard notebooks/reference/*.tsv) $(NEEDS)
	@$(STEP) site "$$STUDY" --against="$$AGAINST"
	$(eval BUILT := yes)

# A result that someone deleted is made again: what later steps read, and what the report shows.
LOST = $(if $(filter-out $(wildcard $(1)),$(1)),FORCE)
SHOWN = $(patsubst $(OUT)/html/files/%,$(OUT)/results/%,$(wildcard $(1:%=$(OUT)/html/files/%)))
RESULTS = $(call LOST,$(2:%=$(OUT)/results/%) $(call SHOWN,tables/$(1)* figures/$(1)*))
$(RAN)/01_ingest.ipynb: $(call RESULTS,01_,cohort.h5ad)
$(RAN)/02_diversity.ipynb: $(call RESULTS,02_,diversity.h5ad estimates/02_diversity.json)
$(RAN)/03_taxa.ipynb: $(call RESULTS,03_,taxa.h5ad estimates/03_taxa.json)
$(RAN)/04_response.ipynb: $(call RESULTS,04_,estimates/04_response.json)
$(RAN)/05_treatment_comparison.ipynb: $(call RESULTS,05_,estimates/05_treatment_comparison.json)
$(PAGE): $(call RESULTS,claims,claims.json claims.tsv) $(call LOST,$(EVERY:%=$(OUT)/html/%.html) $(OUT)/ro-crate-metadata.json)

# ---------------------------------------------------------------- the rest

study: environment ## draft data/NAME/study.yaml: NAME=mycohort TABLE=file METADATA=file [TAXONOMY=file] [TREE=file]
	@$(STEP) study --table="$$TABLE" --metadata="$$METADATA" --taxonomy="$$TAXONOMY" --tree="$$TREE" -- "$$NAME"

check: environment ## tell all problems of a study's files at once; or what it has, and which claims it can test
	@$(STEP) inspect "$$STUDY" --set="$$SET"

test: environment ## lint, types, tests, and the notebooks against their reference outputs
	@failed=0; \
	$(PYTHON) -m ruff check . || failed=1; \
	$(PYTHON) -m ruff format --check . || failed=1; \
	$(PYTHON) -m mypy || failed=1; \
	$(PYTHON) -m pytest notebooks tests --nbval --nbval-current-env -n auto --dist loadfile || failed=1; \
	exit $$failed

share: report ## reports/<study>/<study>-report.zip: the report, its tables, figures and notebooks, to send to others
	@$(STEP) share "$$STUDY"

pdf: report ## reports/<study>/<study>-report.pdf: all pages on paper, by Chromium or Chrome
	@$(STEP) pdf "$$STUDY"

reference: environment ## re-run the notebooks in place with their defaults, print what changed
	@$(STEP) reference

data: environment ## simulate data/demo, or fetch a study's public files
ifeq ($(STUDY),demo)
	@$(PYTHON) -m helpers.simulation.cohort data/demo
else
	@$(STEP) data "$$STUDY"
endif

validate: environment ## type I error, coverage and power on RUNS=500 simulated cohorts; on DASK_SCHEDULER_ADDRESS if set
	@$(PYTHON) -m helpers.simulation.performance $(RUNS) data/demo/validation.tsv

bench: environment ## time the heavy helpers beside named peers: benchmarks/RESULTS.md
	@$(PYTHON) benchmarks/run.py

clean: ## remove reports/ and caches; .venv stays
	@rm -rf reports .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints 2>/dev/null | xargs rm -rf

fuzz: environment ## generate CASES=50000 other wrong and right inputs than make test does
	@FUZZ_CASES=$(CASES) $(PYTHON) -m pytest tests/test_hostile.py -k any -n auto

lock: ## recompile requirements.lock with uv
	@uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --fork-strategy fewest \
	  --no-header --extra dev pyproject.toml -o requirements.lock
