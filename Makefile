# `make fit` trains the default variant, `make test` runs the suite; both set the environment up if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: fit test test-heavy check docs install clean notebook two_stripes scenes two_algorithms paper reproduce ablation ablation_tables

fit: $(STAMP)
	$(BIN)/python -m sinkablate fit --config configs/gate_reg.yaml

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-heavy: $(STAMP)  # toys on three seeds; whatever happens to a job, on a SLURM of its own (Debian: slurm-wlm)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m heavy -n auto --dist loadfile

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

# the figure of docs/data.md
scenes: $(STAMP)
	$(BIN)/python docs/figures/scenes.py

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

# the figures of docs/reproduce.md, numbered as in the paper: the toys, their sweeps over p, gamma and the pathway with the
# edits of its arms, the small ViT without and with registers (four epochs), and, with WEIGHTS=FILE as above, the
# pretrained ViT-S/14; what exists is not made again
PAPER := docs/figures/paper
RUN := $(BIN)/python -m sinkablate
ARM_EDITS := zero_value,donor_value,redirect
paper: $(STAMP)
	test -e runs/toy_nop-nop-s0/DONE || $(RUN) fit --config configs/toy/nop.yaml
	test -e runs/toy_broadcast-broadcast-s0/DONE || $(RUN) fit --config configs/toy/broadcast.yaml
	for variant in baseline reg; do test -e runs/paper/$$variant-s0/DONE || \
	  $(RUN) fit --config configs/$$variant.yaml --run_dir runs/paper/$$variant-s0 --trainer.max_epochs 4 || exit 1; done
	$(RUN) diagnose --run runs/toy_nop-nop-s0 --out out/paper/toy_nop
	$(RUN) diagnose --run runs/paper/baseline-s0 --out out/paper/baseline
	$(RUN) diagnose --run runs/paper/reg-s0 --out out/paper/reg
	$(RUN) intervene --run runs/paper/reg-s0 --rule adaptive --out out/paper_edits/reg
	$(RUN) intervene --run runs/toy_nop-nop-s0 --out out/paper_edits/toy_nop
	$(RUN) report runs/paper runs/toy_nop-nop-s0 out/paper out/paper_edits/reg out/paper_edits/toy_nop \
	    --rule adaptive --paper --maps 0 --overwrite true --out out/report_paper
	for sweep in toys_p toys_gamma pathway_arms; do $(RUN) sweep run sweeps/paper/$$sweep.yaml --in_process || exit 1; done
	for run in runs/pathway_arms/*/; do out=out/paper_arms/$$(basename $$run); test -e $$out/summary.json || \
	  $(RUN) intervene --run $$run --heads 1:0 --limit 64 --control_images 2 --out $$out \
	  --edits $(ARM_EDITS)$$(grep -q 'kind: global' $$run/config.yaml && echo ,pathway) || exit 1; done
	$(RUN) report runs/toys_p runs/toys_gamma runs/pathway_arms runs/toy_broadcast-broadcast-s0 out/paper_arms/* \
	    --rule adaptive --paper --maps 0 --overwrite true --out out/report_paper_toys
	mkdir -p $(PAPER)
	cp out/report_paper_toys/paper/figure_2_nop_toy.png $(PAPER)/figure_2_nop_toy.png
	cp out/report_paper_toys/paper/figure_3_broadcast_toy.png $(PAPER)/figure_3_broadcast_toy.png
	cp out/report_paper_toys/paper/figure_7_formation.png $(PAPER)/figure_7_formation.png
	cp out/report_paper_toys/paper/figure_revision_7b_pathway_arms.png $(PAPER)/figure_revision_7b_pathway_arms.png
	cp out/report_paper/paper/figure_1_stripes.png $(PAPER)/figure_1_stripes.png
	cp out/report_paper/paper/figure_5_10_11_frequency.png $(PAPER)/figure_5_10_11_frequency.png
	cp out/report_paper/paper/figure_6_8_12_13_atlas.png $(PAPER)/figure_6_8_12_13_atlas.png
	cp out/report_paper/paper/figure_14_token_norms.png $(PAPER)/figure_14_token_norms.png
	cp out/report_paper/paper/figure_revision_6_edits.png $(PAPER)/figure_revision_6_edits.png
ifdef WEIGHTS
	$(RUN) diagnose --backbone.name vit_small_patch14_dinov2 --backbone.checkpoint $(WEIGHTS) \
	    --backbone.img_size 224 --images builtin --batch_size 4 --out out/paper_vit/vit_small
	$(RUN) report out/paper_vit --paper --maps 0 --overwrite true --out out/report_paper_vit
	cp out/report_paper_vit/paper/figure_4_9_handoff.png $(PAPER)/vit_small_figure_4_9_handoff.png
	cp out/report_paper_vit/paper/figure_5_10_11_entropy.png $(PAPER)/vit_small_figure_5_10_11_entropy.png
endif

# the figures of docs/reproduce.md, then what evaluate measures of the two small ViTs, on the embedded data
reproduce: paper
	for variant in baseline reg; do \
	  $(RUN) evaluate --run runs/paper/$$variant-s0 --tasks knn,linear,segmentation,discovery,quantization || exit 1; done
	$(RUN) report runs/paper --maps 0 --overwrite true --out out/reproduce

# the sweeps of docs/ablation.md, their tables and figures: about an hour on two cores
DOC := docs/ablation
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
