# One door to everything. `make` alone lists the targets; every experiment's name and alias is a target too.

PROFILE ?= mini
JOBS ?= $(if $(filter mini,$(PROFILE)),2,1)
ARGS ?=
EXECUTED = $(or $(SPEC_RESULTS),results)/$(PROFILE)/*/*.ipynb
PY ?= .venv/bin/python
# PY=python (a conda environment, Binder) is used as it is; otherwise .venv is made from the lock.
ENVIRONMENT := $(if $(filter .venv/bin/python,$(PY)),environment)
NOTEBOOKS := $(wildcard notebooks)
NBVAL := --nbval-lax --nbval-kernel-name python3 --nbval-cell-timeout 600 --nbval-sanitize-with tests/nbval.cfg
# The pages of notebooks open from disk without a network: no scripts, and formulas are pictures.
OFFLINE := --template offline --TemplateExporter.extra_template_basedirs=spec_repro/headless/templates \
  --HTMLExporter.preprocessors=spec_repro.headless.formulas.Formulas
OPTIONS = --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

unexport PYTHONDONTWRITEBYTECODE  # pytest rewrites each test file anew without what it has compiled

.DEFAULT_GOAL := help
.PHONY: help lab data plan figures notebooks report check reference list test test-unit faults lint format lock environment experiment clean mini-models bench bench-users bench-streaming bench-gpu tables

help:  ## this list
	@echo "make TARGET [PROFILE=mini|laptop|paper] [JOBS=2] [ARGS='-p n_samples=500 --force']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  fig02, ...      one experiment by name or alias ('make list' names them all)"
	@echo "Switches for the environment: PYTHON=/path/to/python3.12; TORCH=system reuses an installed torch;"
	@echo "PY=python uses the active environment and installs nothing."

figures: $(ENVIRONMENT)  ## run every notebook, compare with the committed reference, write the report
	@$(PY) -m spec_repro run $(OPTIONS); ran=$$?; \
	$(PY) -m spec_repro check --profile $(PROFILE); same=$$?; \
	$(MAKE) --no-print-directory report && exit $$((ran | same))

test: $(ENVIRONMENT)  ## unit tests, docstring examples, and the committed notebooks re-run against their stored outputs
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder tests spec_repro/core $(NOTEBOOKS) $(NBVAL) $(ARGS)

test-unit: $(ENVIRONMENT)  ## unit tests and docstring examples: no Jupyter kernels, commands of the shell, rehearsals or faults
	@$(PY) -m pytest -p no:nbval -n $(JOBS) --dist loadfile --no-loadscope-reorder tests spec_repro/core \
	  --ignore tests/runs --ignore tests/rehearsals --ignore tests/faults $(ARGS)

faults: $(ENVIRONMENT)  ## kills, full disks, damaged files, hostile input: all of tests/faults, a quarter of an hour
	@mkdir -p build && rm -f build/faults.jsonl
	@FAULTS=whole FAULTS_TALLY=$(CURDIR)/build/faults.jsonl $(PY) -m pytest -n $(JOBS) --dist worksteal tests/faults $(ARGS); \
	failed=$$?; $(PY) tests/faults/tally.py build/faults.jsonl > benchmarks/results/faults.json && \
	$(PY) scripts/render_tables.py && exit $$failed

notebooks: $(ENVIRONMENT)  ## re-execute the notebooks and store their outputs in notebooks/
	@$(PY) -m spec_repro run --save-outputs --force $(OPTIONS)

report: $(ENVIRONMENT)  ## results/PROFILE/report.html, its pages and REPORT.md from the results at hand, each notebook as HTML
	-@printf '%s\n' $(wildcard $(EXECUTED)) | xargs -r -n 12 -P $(JOBS) $(PY) -m nbconvert --to html $(OFFLINE) --log-level ERROR
	@$(PY) -m spec_repro report --profile $(PROFILE)

check: $(ENVIRONMENT)  ## what moved between results/PROFILE and results/reference/PROFILE, which is committed
	@$(PY) -m spec_repro check --profile $(PROFILE)

reference: $(ENVIRONMENT)  ## take results/PROFILE as the new reference, and render the tables from it
	@$(PY) -m spec_repro check --profile $(PROFILE) --renew && $(PY) scripts/render_tables.py

lab: $(ENVIRONMENT)  ## open the notebooks in JupyterLab
	@$(PY) -m jupyter lab notebooks $(ARGS)

list: $(ENVIRONMENT)  ## every figure and table: names, notebook, YAML, the lines that draw, what each profile needs
	@$(PY) -m spec_repro list

data: $(ENVIRONMENT)  ## which data sets and models are here, and how to get the others; PROFILE=laptop: get what it needs
	@$(PY) -m spec_repro $(if $(filter mini,$(PROFILE)),doctor,fetch --profile $(PROFILE) $(ARGS))

plan: $(ENVIRONMENT)  ## what a run of PROFILE would do: order, hours, downloads, disk, what is not possible here
	@$(PY) -m spec_repro run --plan --profile $(PROFILE) $(ARGS)

lint: $(ENVIRONMENT)  ## ruff: rules and layout
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

format: $(ENVIRONMENT)  ## ruff: mend what can be mended
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

lock: $(ENVIRONMENT)  ## resolve pyproject.toml again into the universal requirements.lock
	@$(PY) -m uv pip compile --universal --python-version 3.11 --no-annotate --no-header --upgrade --generate-hashes \
	  --extra all --extra test pyproject.toml --output-file requirements.lock

environment:  ## .venv from requirements.lock (every target does this first)
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/environment

clean:  ## remove .venv, caches and the stamps of current results; results and data stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build spec_repro.egg-info
	find spec_repro tests -name __pycache__ -prune -exec rm -rf {} +
	find results -name .stamp.json -delete

mini-models: $(ENVIRONMENT)  ## train the miniature models from nothing, then repeat the SPEC-align study on them
	@$(PY) scripts/mini/train_mini_models.py
	@$(PY) scripts/mini/study_alignment.py --sweep
	@$(PY) scripts/mini/study_alignment.py

bench: $(ENVIRONMENT)  ## every route on every size, hours in full; OFFICIAL=PATH_TO_THE_RELEASED_CODE, ARGS='--n 4000 --m 500'
	@$(PY) benchmarks/bench.py $(if $(OFFICIAL),--official $(OFFICIAL)) $(ARGS)

bench-users: $(ENVIRONMENT)  ## more pairs than clusters, real features, the whole way; OFFICIAL=PATH, ARGS='--rdx PATH'
	@$(PY) benchmarks/users.py $(if $(OFFICIAL),--official $(OFFICIAL)) $(ARGS)

bench-streaming: $(ENVIRONMENT)  ## time and memory against n from memmaps; ARGS='--n 100000 1281167'
	@$(PY) benchmarks/streaming.py $(ARGS)

bench-gpu: $(ENVIRONMENT)  ## up to ImageNet size on one GPU; scripts/device.sh has the tests and profiles, too
	@$(PY) benchmarks/gpu.py $(ARGS)

tables: $(ENVIRONMENT)  ## the tables of the READMEs and the plots of benchmarks/, from the results
	@$(PY) benchmarks/plots.py
	@$(PY) scripts/render_tables.py

# Any other target is an experiment; `run` names the near miss of an unknown one.
.DEFAULT:
	@$(MAKE) --no-print-directory experiment NAME=$@

experiment: $(ENVIRONMENT)
	@$(PY) -m spec_repro run $(NAME) $(OPTIONS)
