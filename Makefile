# Reproducible report on a treatment-response skin-microbiome study. `make` explains itself.
#
# STUDY  a folder in data/                              make report STUDY=khadka2021
# SET    parameters of this run, checked before it      make report SET="permutations=9999 alpha=0.01"
# AGAINST an earlier run to compare with                make report AGAINST=copy-of-reports/demo
# STUDIES whose reports to lay side by side             make compare STUDIES="demo khadka2021"
# NAME   a new study, drafted from its files            make study NAME=mycohort TABLE=table.qza METADATA=metadata.tsv
# FROM   the folder of these, told by their names       make study NAME=mycohort FROM=results
# PYTHON the interpreter, if not the project's own      make report PYTHON=python

# What is given is never expanded, neither here nor by a shell; what this file keeps for itself cannot be given.
override OWN := OWN SPECIAL OUT PAGE STEP NOTEBOOKS RAN FIRST HELPERS CLAIMS SITE DRAFTED INSTALLED HAS_HELPERS ALONE \
  BEGAN INPUTS NOTE NEEDS BUILT LOST SAVED SAVED_% MAKE% .%
$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(if $(filter $(OWN),$(v)),\
$(error $(v) is not to be given: the Makefile keeps it for itself))$(eval override $$(v) := $$(value $$(v)))))
$(if $(findstring e,$(filter-out --%,$(firstword -$(MAKEFLAGS)))),$(error make -e is not for this project: give variables \
on the command line))
$(foreach v,STUDY STUDIES SET AGAINST MAKE MAKE_COMMAND MAKECMDGOALS,$(if $(filter environment,$(origin $(v))),\
$(eval $$(v) := $$(value $$(v)))))

STUDY ?= demo
STUDIES ?=
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
export STUDY STUDIES SET AGAINST RUNS CASES
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

# What there is, by folder. The first notebook saves what all others read.
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
RAN := $(NOTEBOOKS:%=$(OUT)/%)
FIRST := $(firstword $(RAN))
HELPERS := $(sort $(wildcard src/helpers/*.py src/helpers/*.yaml src/helpers/*.mplstyle src/helpers/run/*.py))
CLAIMS := $(sort $(wildcard data/claims/*.yaml))
SITE := $(sort $(shell find src/helpers/site src/helpers/simulation notebooks/reference data/demo/validation.tsv \
  -type f ! -name '.*' ! -name '*~' ! -name '*.pyc' 2>/dev/null))

# What a shell or make would take for more than a letter; the colon and so on only in a name.
SPECIAL = $(strip $(foreach c,$$ ; & | < > ( ) * ? " ' \ ` $(2),$(findstring $(c),$(1))))
$(foreach v,PYTHON MAKE,$(if $(call SPECIAL,$($(v))),\
$(error $(v) is '$($(v))'; expected a name or path of a program, without $(call SPECIAL,$($(v))))))
ifneq ($(words $(STUDY))$(findstring /,$(STUDY))$(filter . ..,$(STUDY))$(call SPECIAL,$(STUDY),: \# % = ~ { } [ ] !),1)
$(error STUDY is "$(STUDY)"; expected the name of a folder in data/: $(patsubst data/%/study.yaml,%,$(wildcard data/*/study.yaml)))
endif
ifneq ($(filter report share pdf check,$(MAKECMDGOALS)),)
ifeq ($(wildcard data/$(STUDY)/study.yaml),)
$(error there is no data/$(STUDY)/study.yaml; studies: $(patsubst data/%/study.yaml,%,$(wildcard data/*/study.yaml)))
endif
endif

ifneq ($(filter study,$(MAKECMDGOALS)),)
# Only what stands on the command line (a machine may have its own NAME), and as it stands there: `$$` is not expanded.
DRAFTED := NAME TABLE METADATA TAXONOMY TREE FROM
$(foreach v,$(DRAFTED),$(eval override $(v) := $(if $(filter override,$(origin $(v))),$$(value $(v)))))
$(foreach v,NAME $(if $(strip $(value FROM)),,TABLE),$(if $(strip $(value $(v))),,$(error $(v) is not given; expected \
make study NAME=mycohort TABLE=counts [METADATA=metadata.tsv] [TAXONOMY=file] [TREE=file], or NAME=mycohort FROM=folder)))
export $(DRAFTED)
endif

# Targets with a help text, and others.
.PHONY: $(shell sed -n 's/^\([a-z]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST))) environment report-alone lint all-tests fast-tests FORCE

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

# One make at a time works on a study: lock.py waits for the other, and clears up after one that was killed.
ALONE = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(PYTHON) -P src/helpers/run/lock.py $(OUT))

report: $(INSTALLED) ## run the notebooks that changed, build reports/<study>/html
	@$(ALONE) $(MAKE) --no-print-directory report-alone

report-alone: $(PAGE)
	@$(if $(BUILT),s=$$(($$(date +%s) - $(BEGAN))); \
	  echo "Report: $(PAGE) (built in $$((s / 60)) min $$((s % 60)) s)",echo "$(PAGE) is up to date")

BEGAN := $(shell date +%s)
BUILT :=

# Which files a study has, study.yaml says: the step parameters writes that down for make.
INPUTS :=
-include $(OUT)/inputs.mk

# What was given this time, what study.yaml and the inputs hold, and which files there are; each note changes only if that
# did, whatever dates the files have.
$(OUT)/.set: NOTE = printf '%s' "$$SET"
$(OUT)/.against: NOTE = printf '%s' "$$AGAINST"
$(OUT)/.study: NOTE = cat data/$(STUDY)/study.yaml $(CLAIMS) </dev/null
$(OUT)/.inputs: NOTE = cat $(INPUTS) 2>/dev/null </dev/null | cksum
$(OUT)/.helpers: NOTE = echo $(HELPERS)
$(OUT)/.site: NOTE = echo $(NOTEBOOKS) $(SITE)
$(addprefix $(OUT)/,.set .against .study .inputs .helpers .site): FORCE
	@mkdir -p $(@D); note=$$($(NOTE)); printf '%s\n' "$$note" | cmp -s - $@ || printf '%s\n' "$$note" > $@

$(OUT)/parameters.yaml: $(OUT)/.study $(OUT)/.set $(OUT)/.inputs requirements.lock \
  $(filter %/study.py %/measures.py %/measures.yaml %/claims.py %/parameters.py,$(HELPERS)) | $(INSTALLED)
	@$(HAS_HELPERS)
	@$(STEP) parameters "$$STUDY" --set="$$SET"
	@$(MAKE) --no-print-directory --silent $(OUT)/.inputs # now that inputs.mk is known
	@touch $@

NEEDS := $(OUT)/parameters.yaml $(OUT)/.helpers $(HELPERS) | $(INSTALLED)

$(RAN): $(OUT)/%.ipynb: %.ipynb $(NEEDS)
	@$(STEP) run "$$STUDY" "$(*F)"
$(filter-out $(FIRST),$(RAN)): $(FIRST)

$(PAGE): $(RAN) $(SITE) $(OUT)/.site $(OUT)/.against $(NEEDS)
	@$(STEP) site "$$STUDY" --against="$$AGAINST"
	$(eval BUILT := yes)

# What a step saved, it writes down for make: it is done again if someone deleted a file of that.
$(foreach step,site $(basename $(notdir $(RAN))),$(eval SAVED_$(step) :=))
-include $(wildcard $(OUT)/.runs/*.mk)
LOST = $(if $(filter-out $(wildcard $(1)),$(1)),FORCE)
SAVED = $(call LOST,$(patsubst %,$(OUT)/%,$(or $(SAVED_$(1)),what-is-not-known)))
$(foreach ran,$(RAN),$(eval $(ran): $(call SAVED,$(basename $(notdir $(ran))))))
$(PAGE): $(call SAVED,site)

# ---------------------------------------------------------------- the rest

study: environment ## draft data/NAME/study.yaml: NAME=mycohort TABLE=file [METADATA=file] [TAXONOMY=file] [TREE=file], or FROM=folder
	@$(STEP) study --table="$$TABLE" --metadata="$$METADATA" --taxonomy="$$TAXONOMY" --tree="$$TREE" --from="$$FROM" -- "$$NAME"

check: environment ## tell all problems of a study's files at once; or what it has, and which claims it can test
	@$(STEP) check "$$STUDY" --set="$$SET"

test: lint ## lint, types, tests, and the notebooks against their reference outputs
quick: lint ## lint, types, and the tests that take a minute together: no notebook, no whole report

# Beside the tests, which start on one core.
lint: environment
	@failed=0; $(PYTHON) -m ruff check . || failed=1; $(PYTHON) -m ruff format --check . || failed=1; \
	$(PYTHON) -m mypy || failed=1; exit $$failed

test: all-tests
all-tests: environment
	@$(PYTHON) -m pytest notebooks tests --nbval --nbval-current-env -n auto --dist loadfile

quick: fast-tests
fast-tests: environment
	@$(PYTHON) -m pytest tests -m "not slow" -n auto --dist loadfile -q

format: environment ## mend what lint can, and lay out all code
	@failed=0; $(PYTHON) -m ruff check --fix --quiet . || failed=1; $(PYTHON) -m ruff format . || failed=1; exit $$failed

lab: environment ## JupyterLab on notebooks/, which run there from top to bottom as they stand
	@$(PYTHON) -m jupyterlab notebooks

share: report ## reports/<study>/<study>-report.zip: the report, its tables, figures and notebooks, to send to others
	@$(ALONE) $(STEP) share "$$STUDY"

pdf: report ## reports/<study>/<study>-report.pdf: all pages on paper, by Chromium or Chrome
	@$(ALONE) $(STEP) pdf "$$STUDY"

compare: environment ## reports/compare: claims of the reports of STUDIES="demo khadka2021" side by side
	@set -f; $(STEP) compare -- $$STUDIES

reference: environment ## re-run the notebooks in place with their defaults, print what changed
	@$(STEP) reference

data: environment ## simulate data/demo, or fetch a study's public files
ifeq ($(STUDY),demo)
	@$(STEP) simulate
else
	@$(STEP) data "$$STUDY"
endif

validate: environment ## type I error, coverage and power on RUNS=500 simulated cohorts; on DASK_SCHEDULER_ADDRESS if set
	@$(STEP) validate "$$RUNS"

bench: environment ## time the heavy helpers beside named peers: benchmarks/RESULTS.md
	@$(PYTHON) benchmarks/run.py

clean: ## remove reports/ and caches; .venv stays
	@rm -rf reports .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints 2>/dev/null | xargs rm -rf

fuzz: environment ## generate CASES=50000 other wrong and right inputs than make test does
	@FUZZ_CASES="$$CASES" $(PYTHON) -m pytest tests/test_hostile.py tests/test_draft.py -k any_ -n auto

lock: ## recompile requirements.lock with uv
	@uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --fork-strategy fewest \
	  --no-header --extra dev pyproject.toml -o requirements.lock
