# `make fit` trains the default variant, `make test` runs the suite; both set the environment up if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: fit test test-heavy check install clean two_algorithms

fit: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile

test-heavy: $(STAMP)  # toys on three seeds; whatever happens to a job, on a SLURM of its own (Debian: slurm-wlm)
	$(BIN)/python -m pytest -m heavy

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# the commands of docs/two_algorithms.md, and its figures
two_algorithms: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/toy/nop.yaml
	$(BIN)/python -m sinkablate fit --config configs/toy/broadcast.yaml
	$(BIN)/python -m sinkablate diagnose --run runs/toy_nop-nop-s0 --out out/toy_nop-nop-s0
	$(BIN)/python -m sinkablate diagnose --run runs/toy_broadcast-broadcast-s0 --out out/toy_broadcast-broadcast-s0
	$(BIN)/python -m sinkablate intervene --run runs/toy_nop-nop-s0 --out out/toy_nop-nop-s0-edits
	$(BIN)/python -m sinkablate intervene --run runs/toy_broadcast-broadcast-s0 --out out/toy_broadcast-broadcast-s0-edits
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml
	$(BIN)/python -m sinkablate diagnose --run runs/vit_mini-gate_reg-s0 --out out/vit_mini-gate_reg-s0
	$(BIN)/python -m sinkablate intervene --run runs/vit_mini-gate_reg-s0 --rule adaptive --out out/vit_mini-gate_reg-s0-edits
	cp runs/toy_nop-nop-s0/figures/formation.png docs/figures/formation_toy_nop-nop-s0.png
	cp runs/toy_broadcast-broadcast-s0/figures/formation.png docs/figures/formation_toy_broadcast-broadcast-s0.png
	cp out/toy_nop-nop-s0/figures/stripes.png docs/figures/stripes_toy_nop-nop-s0.png
	cp out/toy_nop-nop-s0-edits/figures/edits_by_label.png docs/figures/edits_toy_nop-nop-s0.png
	cp out/toy_broadcast-broadcast-s0/figures/stripes.png docs/figures/stripes_toy_broadcast-broadcast-s0.png
	cp out/toy_broadcast-broadcast-s0-edits/figures/edits_by_label.png docs/figures/edits_toy_broadcast-broadcast-s0.png
	cp out/vit_mini-gate_reg-s0/figures/stripes.png docs/figures/stripes_vit_mini-gate_reg-s0.png
	cp out/vit_mini-gate_reg-s0-edits/figures/edits_by_label.png docs/figures/edits_vit_mini-gate_reg-s0.png

clean:
	rm -rf $(VENV)
