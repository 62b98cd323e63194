# `make fit` trains the default variant, `make test` runs the suite; both set the environment up if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: fit test check install clean two_algorithms

fit: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# the commands of docs/two_algorithms.md, and its figures
TOYS := toy_nop-nop-s0 toy_broadcast-broadcast-s0
VIT := vit_mini-gate_reg-s0

two_algorithms: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/toy/nop.yaml
	$(BIN)/python -m sinkablate fit --config configs/toy/broadcast.yaml
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml
	for run in $(TOYS) $(VIT); do $(BIN)/python -m sinkablate diagnose --run runs/$$run --out out/$$run || exit 2; done
	for run in $(TOYS); do $(BIN)/python -m sinkablate intervene --run runs/$$run --out out/$$run-edits || exit 2; done
	$(BIN)/python -m sinkablate intervene --run runs/$(VIT) --rule adaptive --out out/$(VIT)-edits
	for run in $(TOYS); do cp runs/$$run/figures/formation.png docs/figures/formation_$$run.png; done
	for run in $(TOYS) $(VIT); do cp out/$$run/figures/stripes.png docs/figures/stripes_$$run.png; \
	    cp out/$$run-edits/figures/edits_by_label.png docs/figures/edits_$$run.png; done

clean:
	rm -rf $(VENV)
