# `make fit` trains the default variant, `make test` runs the suite; both set the environment up if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: fit test test-heavy check docs install clean notebook two_stripes two_algorithms ablation ablation_tables

fit: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-heavy: $(STAMP)  # toys on three seeds; whatever happens to a job, on a SLURM of its own (Debian: slurm-wlm)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m heavy -n auto --dist loadgroup

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) docs

docs: $(STAMP)  # the documentation, as pages in out/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# docs/quickstart.ipynb, executed in place
notebook: $(STAMP)
	PYTHONWARNINGS=ignore $(BIN)/python docs/execute_notebook.py docs/quickstart.ipynb

# the first figure of the README; WEIGHTS=FILE takes the weights of timm's vit_small_patch14_dinov2 from a local file
two_stripes: $(STAMP)
	test -e runs/toy_nop-nop-s0/DONE || $(BIN)/python -m sinkablate fit --config configs/toy/nop.yaml
	$(BIN)/python docs/figures/two_stripes.py $(if $(WEIGHTS),--weights $(WEIGHTS))

# the commands of docs/two_algorithms.md, and the figures of that page, of diagnose.md, intervene.md and training.md
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
	cp out/vit_mini-gate_reg-s0-edits/figures/effect_by_ratio.png docs/figures/effect_by_ratio_vit_mini-gate_reg-s0.png
	cp out/vit_mini-gate_reg-s0/figures/atlas.png docs/figures/atlas_vit_mini-gate_reg-s0.png
	cp out/vit_mini-gate_reg-s0/figures/sensitivity.png docs/figures/sensitivity_vit_mini-gate_reg-s0.png
	cp runs/vit_mini-gate_reg-s0/figures/heads_step_00001872.png docs/figures/heads_gate_reg.png

# the sweeps of docs/ablation.md, their tables and figures: about an hour on two cores
DOC := docs/ablation
RUN := $(BIN)/python -m sinkablate
ablation: $(STAMP)
	for sweep in smoke toys ablation; do \
	  $(RUN) sweep run sweeps/$$sweep.yaml --in_process && $(RUN) sweep collect sweeps/$$sweep.yaml || exit 1; done
	$(MAKE) ablation_tables

# the same from runs that exist
ablation_tables: $(STAMP)
	mkdir -p $(DOC)
	$(RUN) compare runs/ablation/results.csv --metric val/acc1 --factors gate,registers --margin .005 --detect .005 --format markdown --overwrite --out $(DOC)/accuracy.md
	$(RUN) compare runs/ablation/results.csv --metric sink/adaptive/events --factors gate,registers --format markdown --overwrite --out $(DOC)/sinks.md
	$(RUN) compare runs/toys/results.csv --where config=nop --metric val/loss --factors attention --baseline 'attention={score: softmax}' --format markdown --overwrite --out $(DOC)/toy_nop.md
	$(RUN) compare runs/toys/results.csv --where config=broadcast --metric val/loss --factors attention --baseline 'attention={score: softmax}' --format markdown --overwrite --out $(DOC)/toy_broadcast.md
	$(RUN) compare runs/toys/results.csv --where 'attention={score: softmax}' --metric toy/mass --factors config --baseline config=nop --format markdown --overwrite --out $(DOC)/toy_mass.md
	$(RUN) compare runs/toys/results.csv --where 'attention={score: softmax}' --metric toy/formed_step --factors config --baseline config=nop --format markdown --overwrite --out $(DOC)/toy_formed.md
	$(RUN) report runs/ablation --out out/ablation --overwrite true --results runs/ablation/results.csv --metric val/acc1 --factors gate,registers --margin .005
	cp out/ablation/figures/effects.png $(DOC)/effects.png
	cp out/ablation/figures/scatter.png $(DOC)/accuracy_against_sinks.png

clean:
	rm -rf $(VENV)
