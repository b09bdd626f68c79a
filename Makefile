# The first target that runs builds .venv; later ones rebuild it only when pyproject.toml or constraints.txt changed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where the environment forbids it, each process would compile torch and DeepSpeed from their sources: 10 s for a rank
# of the demo rather than 5.
export PYTHONDONTWRITEBYTECODE :=

# Of the pretraining in `make demo`.
PROCESSES ?= 2

ENCODER := runs/demo/pretrain/encoder

# A file of tests is one process's; tests/conftest.py says which come first.
SIDE_BY_SIDE := python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Each with the newest versions of everything, which constraints.txt holds back.
NEWEST ?= python3.11 python3.12 python3.13

.PHONY: demo test fast soak check newest
.DELETE_ON_ERROR:

# From nothing to a released encoder, with the commands that a real corpus needs too. Everything that it writes lies in
# data/demo and runs/demo.
demo: export OMP_NUM_THREADS := 1
demo: .venv/installed
	rm -rf data/demo runs/demo
	python -m shards write synthetic corpus.synthetic.root=data/demo/raw out=data/demo/clips check=true
	python -m shards write synthetic corpus.synthetic.root=data/demo/raw out=data/demo/clips
	python -m shards check data/demo/clips
	python -m shards show data/demo/clips
	torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node $(PROCESSES) -m pretrain demo stream.shards=data/demo/clips runs=runs/demo name=pretrain
	python -m shards write synthetic_labelled corpus.synthetic.root=data/demo/raw_labelled out=data/demo/labelled
	python -m linear_probe synthetic encoder=$(ENCODER) shards=data/demo/labelled out=runs/demo/probe
	python -m triptych.score runs/demo/probe/predictions.csv protocol=synthetic out=runs/demo/scores
	python -m shards attention data/demo/labelled encoder=$(ENCODER) "keys=[01-01-03-01-02-10-21]" out=runs/demo/attention
	python -m finetune synthetic encoder=$(ENCODER) shards=data/demo/labelled out=runs/demo/finetune
	python -m finetune.attention runs/demo/finetune/runs/pretrained-seed-0 out=runs/demo/finetune_attention
	python -m triptych.release runs/demo/pretrain runs/demo/released results=runs/demo/probe/results.json
	python -m triptych.report runs/demo/pretrain runs/demo/probe runs/demo/finetune out=runs/demo/report title="Triptych demo"

# Everything that this machine can run, Slurm and several processes included; what it cannot run is counted as skipped.
# Slurm's tests, which mostly wait, come one after the other, beside the others.
test: export OMP_NUM_THREADS := 1
test: .venv/installed
	$(SIDE_BY_SIDE) -m "not soak"

# About a minute and a half.
fast: export OMP_NUM_THREADS := 1
fast: .venv/installed
	$(SIDE_BY_SIDE) -m "not slow and not dist and not slurm and not soak"

# Long trials: faults, load, many restarts.
soak: export OMP_NUM_THREADS := 1
soak: .venv/installed
	python -m pytest -m soak --timeout 3600

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy

# What a plain `pip install` gives today: the fast tests on the newest versions, on each Python of NEWEST that is here.
newest: export OMP_NUM_THREADS := 1
newest: .venv/installed
	@uv=$$(command -v uv); tried=; failed=; \
	for name in $(NEWEST); do \
	  if ! "$$name" -c 0 2>/dev/null; then echo "newest: no $$name here: not tried" >&2; continue; fi; \
	  rm -rf ".newest/$$name"; \
	  "$$uv" venv --quiet --python "$$("$$name" -c 'import sys; print(sys.executable)')" ".newest/$$name"; \
	  "$$uv" pip install --quiet --upgrade --python ".newest/$$name/bin/python" -e '.[dev]'; \
	  "$$uv" pip freeze --quiet --exclude-editable --python ".newest/$$name/bin/python" > ".newest/$$name/versions.txt"; \
	  PATH="$(CURDIR)/.newest/$$name/bin:$$PATH" $(SIDE_BY_SIDE) -m "not slow and not dist and not slurm and not soak" \
	    || failed="$$failed $$name"; \
	  tried="$$tried $$name"; \
	done; \
	echo "newest: tried$${tried:- nothing}; failed:$${failed:- none}"; [ -n "$$tried" ] && [ -z "$$failed" ]

.venv/installed: pyproject.toml constraints.txt
	@python=; for name in python3.12 python3.11 python3.13 python3; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed (python3.12, python3.11, ... or python3)" >&2; exit 1; fi; \
	uv=uv; \
	if ! uv --version >/dev/null 2>&1; then \
	  [ -x .venv/bin/uv ] || "$$python" -m venv .venv || { rm -rf .venv; exit 1; }; \
	  .venv/bin/python -m pip install --quiet uv; uv=.venv/bin/uv; \
	fi; \
	[ -x .venv/bin/python ] || "$$uv" venv --quiet --python "$$python" .venv; \
	"$$uv" pip install --python .venv/bin/python -c constraints.txt -e '.[dev]'
	@touch $@
