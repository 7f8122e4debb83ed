PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A ComfyUI for the tests, with an environment of its own, in COMFYUI_PATH (~/comfy/ComfyUI).
# COMFYUI_SOURCE and COMFYUI_REF choose another source or version.
comfyui: venv
	$(BIN)/python tests/comfy/setup_comfyui.py

# The tests with a running ComfyUI, in each version, front-end and renderer that the pack promises.
hosts: venv
	$(BIN)/python tests/comfy/hosts.py

.PHONY: venv comfyui hosts demo evaluation gpu test lint format format-check types floors check

venv: $(STAMP)

# clip-anytorch is there for CLIP's vocabulary alone; what its code depends on is not needed.
# The constraints are not optional: without them pip may choose another torch, of several gigabytes.
$(STAMP): pyproject.toml requirements.txt constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps clip-anytorch
	touch $@

demo: venv
	$(BIN)/live2diff demo --output demo_output

# Regenerates every figure of docs/evaluation.md. The bundled model's weights of before their last
# change are compared with those of now, and a network that went on from there on single pictures
# alone; it is trained first if it is not there (40 minutes on two cores).
WEIGHTS := live2diff_core/weights/bundled
EARLIER = $(shell git log -1 --format=%h --skip=1 -- $(WEIGHTS)/bundled.safetensors 2>/dev/null)
RUNS = runs/evaluation/$(EARLIER)
$(RUNS)/before: | $(STAMP)
	mkdir -p $@.part
	git archive $(EARLIER) $(WEIGHTS) \
		| tar x -C $@.part --strip-components 3
	mv $@.part $@

$(RUNS)/alone/model: | $(RUNS)/before
	$(BIN)/live2diff train bundled --start $(RUNS)/before --frame-by-frame --directory $(RUNS)/alone

evaluation: venv $(RUNS)/alone/model
	$(BIN)/python benchmarks/styles.py --before $(RUNS)/before
	$(BIN)/python benchmarks/evaluation.py --alone $(RUNS)/alone/model

# Regenerates every figure of a GPU in docs/performance.md, on a machine that has one.
gpu: venv
	$(BIN)/python benchmarks/gpu.py

# What ComfyUI's own environment lacks for the pack is added to it. One process a core, each with one
# thread: threads of several processes would wait for each other.
test: venv
	$(BIN)/python tests/comfy/install.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical

lint: venv
	$(BIN)/ruff check .

format: venv
	$(BIN)/ruff format .

format-check: venv
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

floors: venv
	$(BIN)/python -m pytest tests/test_floors.py

check: format-check lint types floors test
