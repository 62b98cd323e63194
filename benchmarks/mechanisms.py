"""Compare forward and backward passes of a ViT with each mechanism to those with timm's attention.

    python -m benchmarks.mechanisms [--model vit_small_patch16_224] [--img_size 224] [--batch 8] [--rounds 15] [--bf16]
                                    [--compile]

`--compile` compiles each block of every model, including timm's: blocks share their code, so this takes a tenth of the
time that the whole model takes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.interleave import DEVICE, interleave, report
from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.vit.backbone import build_backbone

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "identity": ({}, {}),
    "registers 4": ({"registers": 4}, {}),
    "sink zero": ({}, {"sink": "zero"}),
    "sink learned": ({}, {"sink": "learned"}),
    "sink kv_bias": ({}, {"sink": "kv_bias"}),
    "gate headwise": ({}, {"gate": "headwise"}),
    "gate elementwise": ({}, {"gate": "elementwise"}),
    "clipped_softmax": ({}, {"score": "clipped_softmax"}),
    "relu": ({}, {"score": "relu"}),
    "pointwise softplus": ({}, {"score": "pointwise", "pointwise_function": "softplus"}),
    "polynomial": ({}, {"score": "polynomial"}),
    "sigmoid": ({}, {"score": "sigmoid"}),
}
"""Name -> fields of `BackboneConfig` and of `AttentionConfig`."""
ASKED = {"registers 4": 1.05, "sink zero": 1.05, "sink learned": 1.05, "gate headwise": 1.05, "gate elementwise": 1.15}


@dataclass(frozen=True)
class Setting:
    """How the models are trained."""

    model: str = "vit_small_patch16_224"
    img_size: int = 224
    batch: int = 8
    bf16: bool = False
    """Under autocast."""
    backend: str | None = None
    """Backend of `torch.compile`, with which every block is compiled; None does not compile."""


def build(name: str, setting: Setting) -> nn.Module:
    """Build the model of a variant, or timm's for the name `timm`."""
    shape: dict[str, Any] = {"num_classes": 10, "in_chans": 3, "img_size": setting.img_size}
    if name == "timm":
        model = timm.create_model(setting.model, **shape)
    else:
        backbone, attention = VARIANTS[name]
        config = BackboneConfig(name=setting.model, attention=AttentionConfig(**attention), **backbone)
        model = build_backbone(config, **shape, seed=0)
    model = model.to(DEVICE).train()
    if setting.backend:
        for block in model.blocks:
            block.compile(backend=setting.backend, dynamic=False)
    return model


def training_step(model: nn.Module, setting: Setting) -> Callable[[], None]:
    """Return a function that runs a forward and a backward pass on random images."""
    images = torch.randn(setting.batch, 3, setting.img_size, setting.img_size, device=DEVICE)
    labels = torch.randint(0, 10, (setting.batch,), device=DEVICE)

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=setting.bf16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Setting.model)
    parser.add_argument("--img_size", type=int, default=Setting.img_size)
    parser.add_argument("--batch", type=int, default=Setting.batch)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bf16", action="store_true", help="under autocast")
    parser.add_argument("--compile", action="store_true", help="compile the blocks of every model")
    args = parser.parse_args()
    torch._dynamo.config.recompile_limit = 64  # each variant is another version of the same code
    setting = Setting(args.model, args.img_size, args.batch, args.bf16, "inductor" if args.compile else None)
    steps = {name: training_step(build(name, setting), setting) for name in ("timm", *VARIANTS)}
    report(
        f"{args.model}, {args.img_size} px, batch {args.batch}, {DEVICE}{', bf16' * args.bf16}"
        f"{', compiled' * args.compile}, {torch.get_num_threads()} threads",
        interleave(steps, args.rounds, warmup=3 if args.compile else 1),
        "timm",
        ASKED,
    )


if __name__ == "__main__":
    main()
