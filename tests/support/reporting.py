"""Small real runs for reports, with thresholds so low that untrained heads have events."""

from pathlib import Path

from evaluating import folder_data
from running import CONFIGS, Outcome, fit, run

LOW = (
    "--diagnostics.thresholds.routed_min",
    "0.06",
    "--diagnostics.thresholds.routed_grid",
    "[0.05,0.07]",
    "--diagnostics.thresholds.event_min",
    "0.4",
    "--diagnostics.thresholds.adaptive_min",
    "0.01",
)
VARIANTS = {
    "baseline": ("none", "None"),
    "gate": ("headwise", "None"),
    "reg": ("none", "4"),
    "gate_reg": ("headwise", "4"),
}
"""Variant -> gate and registers, as in its configuration."""
EVALUATED = ("baseline-s0", "baseline-s1", "gate-s0", "gate-s1")
"""The runs that are evaluated."""
FIGURES = {
    "handoff",
    "frequency",
    "entropy",
    "atlas",
    "token_norms",
    "formation",
    "scatter",
    "quality",
    "ablation",
    "effects",
    "labels_by_type",
    "stability",
    "sensitivity",
    "edits",
    "token_maps",
    "maps",
}


def trained(root: Path, images: Path) -> Path:
    """Train a gate x registers design on two seeds; evaluate four of the runs, diagnose and edit one of them."""
    for variant in VARIANTS:
        for seed in ("0", "1"):
            fit(
                root / "runs" / f"{variant}-s{seed}",
                "--seed_everything",
                seed,
                *LOW,
                "--diagnostics.every_n_steps",
                "1",
                "--model.optim.lr",
                "0.01",
                "--trainer.limit_train_batches",
                "4",
                configs=[CONFIGS / f"{variant}.yaml"],
            ).succeeded()
    for name in EVALUATED:
        words = (*folder_data(images), "--tasks", "knn", "--floors", "false", "--device", "cpu")
        run("evaluate", "--run", root / "runs" / name, *words).succeeded()
    run("diagnose", "--run", root / "runs" / "gate_reg-s0", "--out", root / "diagnoses" / "first").succeeded()
    heads = ("--limit", "2", "--heads", "1:0,3:2", "--edits", "zero_value,redirect", "--control_images", "2")
    run("intervene", "--run", root / "runs" / "gate_reg-s0", "--out", root / "edits", *heads).succeeded()
    return root


def report(out: Path, *args: str | Path) -> Outcome:
    """Run `report` into a directory."""
    return run("report", *args, "--out", out)
