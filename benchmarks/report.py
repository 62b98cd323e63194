"""Time `report` on many runs of a large model's shape, and measure the size and loading time of its page."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sinkablate.__main__ import main
from sinkablate.config import BackboneConfig, ThresholdConfig
from sinkablate.config.attention import AttentionConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.rules import rules
from sinkablate.diagnostics.summary import scalars
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.vit.backbone import build_backbone

VARIANTS = {
    "baseline": ("none", 0),
    "reg": ("none", 4),
    "gate": ("headwise", 0),
    "gate_reg": ("headwise", 4),
    "gate_elementwise": ("elementwise", 0),
    "gate_elementwise_reg": ("elementwise", 4),
}
BLOCKS, HEADS, IMAGES = 24, 16, 16
LIMITS = {"seconds": 60, "page_mb": 20, "interactive_s": 3}


def write_run(path: Path, variant: str, seed: int, measurements: int, rows: int) -> None:
    """Write a finished run whose measurements come from a narrow untrained model with sharpened scores."""
    gate, registers = VARIANTS[variant]
    config = BackboneConfig(
        name="vit_mini",
        depth=BLOCKS,
        num_heads=HEADS,
        embed_dim=128,
        registers=registers,
        attention=AttentionConfig(gate=gate),
    )
    model = build_backbone(config, num_classes=10, in_chans=1, img_size=28, seed=seed).eval()
    for block in model.blocks:
        block.attn.qkv.weight.data.mul_(12)
    images = torch.randn(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    thresholds = ThresholdConfig()
    records, _ = probe(model, images, np.arange(IMAGES), thresholds)
    heads, blocks, values = (
        head_table(records, thresholds),
        block_table(records, thresholds),
        scalars(records, thresholds),
    )
    (path / "diagnostics" / "blocks").mkdir(parents=True)
    steps = np.linspace(0, rows * 10, measurements).astype(int).tolist()
    for step in steps:
        for table, folder in ((heads, "."), (blocks, "blocks")):
            table.select(pl.lit(step).alias("step"), pl.all()).write_parquet(
                path / "diagnostics" / folder / f"step_{step:08d}.parquet"
            )
    rng = np.random.default_rng(seed)
    values |= {
        "val/acc1": 0.7 + 0.01 * registers + 0.01 * rng.standard_normal(),
        "val/loss": 1.2,
        "stability/loss_spikes": float(rng.poisson(3)),
        "stability/grad_spikes": float(rng.poisson(20)),
        "stability/nonfinite_steps": 0.0,
    }
    drawn = {name: value * np.linspace(0.2, 1, rows) * rng.uniform(0.9, 1.1, rows) for name, value in values.items()}
    pl.DataFrame({"step": np.arange(rows) * 10, **drawn}).write_csv(path / "metrics.csv")
    config_text = {
        "seed_everything": seed,
        "variant": variant,
        "model": {"backbone": {"registers": registers, "attention": {"gate": gate}}},
        "diagnostics": {"thresholds": {"nop_max": 0.2}},
    }
    (path / "config.yaml").write_text(json.dumps(config_text))
    (path / "summary.json").write_text(json.dumps(values | {"rules": [str(rule) for rule in rules(thresholds)]}))
    (path / "DONE").touch()


def interactive(page: Path) -> list[float]:
    """Seconds from opening the page to its first panels, and from choosing another run to its new panels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready] #handoff-plot .main-svg")
            times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        tab.select_option("#run", index=7)
        tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        chosen = time.perf_counter() - begun
        browser.close()
    return [sorted(times)[len(times) // 2], chosen]


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--measurements", type=int, default=100)
    parser.add_argument("--rows", type=int, default=3000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for variant in VARIANTS:
            for seed in range(args.seeds):
                write_run(root / "runs" / f"{variant}-s{seed}", variant, seed, args.measurements, args.rows)
        begun = time.perf_counter()
        assert main(["report", str(root / "runs"), "--out", str(root / "report"), "--factors", "gate,registers"]) == 0
        seconds = time.perf_counter() - begun
        page = root / "report" / "index.html"
        opened, chosen = interactive(page)
        results = {"seconds": seconds, "page_mb": page.stat().st_size / 1e6, "interactive_s": opened}
        print(f"{len(VARIANTS) * args.seeds} runs of {BLOCKS} blocks x {HEADS} heads, {args.measurements} measurements")
        for name, value in results.items():
            print(f"  {name:<14} {value:6.2f}  target: <= {LIMITS[name]}")
        print(f"  another run is shown after {chosen:.2f} s")


if __name__ == "__main__":
    run()
