"""Compare forward and backward passes of a ViT with each mechanism to those with timm's attention.

python -m benchmarks.mechanisms [--model vit_small_patch16_224] [--img_size 224] [--batch 8] [--rounds 15] [--bf16]
"""

import argparse

import timm
import torch
import torch.nn.functional as F

from benchmarks.interleave import DEVICE, interleave, report
from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.vit.backbone import build_backbone

VARIANTS = {
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
ASKED = {"registers 4": 1.05, "sink zero": 1.05, "sink learned": 1.05, "gate headwise": 1.05, "gate elementwise": 1.15}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--img_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bf16", action="store_true", help="under autocast")
    args = parser.parse_args()
    shape = {"num_classes": 10, "in_chans": 3, "img_size": args.img_size}
    images = torch.randn(args.batch, 3, args.img_size, args.img_size, device=DEVICE)
    labels = torch.randint(0, 10, (args.batch,), device=DEVICE)
    models = {"timm": timm.create_model(args.model, **shape)}
    for name, (backbone, attention) in VARIANTS.items():
        config = BackboneConfig(name=args.model, attention=AttentionConfig(**attention), **backbone)
        models[name] = build_backbone(config, **shape, seed=0)

    def step(model: torch.nn.Module):
        def run() -> None:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()

        return run

    times = interleave({name: step(model.to(DEVICE).train()) for name, model in models.items()}, args.rounds)
    report(
        f"{args.model}, {args.img_size} px, batch {args.batch}, {DEVICE}{', bf16' * args.bf16}, "
        f"{torch.get_num_threads()} threads",
        times,
        "timm",
        ASKED,
    )


if __name__ == "__main__":
    main()
