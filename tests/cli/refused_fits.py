"""Arguments of `fit` that are refused, by subject, with words that the message must contain."""

from running import CONFIGS

ATTENTION = "--model.backbone.attention"
SOURCE = "--data.source"
COLOR = "--data.image.in_chans 3 --data.image.mean [.5,.5,.5] --data.image.std [.5,.5,.5]"
FOLDER = f"{SOURCE}.format folder {SOURCE}.train {{folder}}/train {SOURCE}.val {{folder}}/val"
STREAM = f"{SOURCE}.reader stream"
PLAIN = "--diagnostics.every_n_steps 0"
TINY = "--model.backbone.depth 1 --model.backbone.embed_dim 48 --model.backbone.num_heads 3 --data.image.size 32"


def shards(name: str) -> str:
    """Arguments that read the shards in one of the folders of the fixture `paths`."""
    return (
        f"{COLOR} {SOURCE}.format shards {SOURCE}.train {{{name}}}/train-{{{{0000..0003}}}}.tar "
        f"{SOURCE}.val {{{name}}}/val-{{{{0000..0001}}}}.tar"
    )


VALUES = {
    "score": (f"{ATTENTION}.score softmaxx", ["model.backbone.attention.score", "softmaxx"]),
    "sink": (f"{ATTENTION}.sink learnt", ["model.backbone.attention.sink", "learnt"]),
    "gate": (f"{ATTENTION}.gate blockwise", ["model.backbone.attention.gate", "blockwise"]),
    "gate_frozen": (f"{ATTENTION}.gate_frozen true", ["model.backbone.attention.gate_frozen", "gate=none"]),
    "gate_position": (f"{ATTENTION}.gate_position value", ["model.backbone.attention.gate_position", "gate=none"]),
    "learned sink, sigmoid": (
        f"{ATTENTION}.sink learned {ATTENTION}.score sigmoid",
        ["model.backbone.attention.sink=learned", "score=sigmoid"],
    ),
    "zero sink, relu": (f"{ATTENTION}.sink zero {ATTENTION}.score relu", ["model.backbone.attention.sink=zero"]),
    "number without effect": (
        f"{ATTENTION}.clip_zeta 1.1",
        ["model.backbone.attention.clip_zeta=1.1", "score=softmax"],
    ),
    "alpha": (
        f"{ATTENTION}.score pointwise {ATTENTION}.pointwise_alpha 2",
        ["model.backbone.attention.pointwise_alpha"],
    ),
    "matched and gated": (
        f"--model.backbone.match_parameters headwise {ATTENTION}.gate headwise",
        ["model.backbone.match_parameters=headwise"],
    ),
    "layers without a mechanism": ("--model.backbone.layers [0]", ["model.backbone.layers"]),
    "layer out of range": (f"--model.backbone.layers [7] {ATTENTION}.sink zero", ["model.backbone.layers", "7"]),
    "positions without registers": ("--model.backbone.register_pos_embed true", ["model.backbone.register_pos_embed"]),
    "two sources of weights": (
        "--model.backbone.pretrained true --model.backbone.checkpoint x.pt",
        ["model.backbone.pretrained and checkpoint"],
    ),
    "type of registers": ("--model.backbone.registers many", ["model.backbone.registers", "many"]),
    "type of max_epochs": ("--trainer.max_epochs soon", ["trainer.max_epochs", "soon"]),
    "type of batch_size": ("--data.batch_size 1.5", ["data.batch_size", "1.5"]),
    "lr": ("--model.optim.lr -1", ["model.optim.lr"]),
    "optimizer": ("--model.optim.opt adamm", ["model.optim.opt=adamm"]),
    "warm-up": ("--model.optim.warmup_steps 99", ["model.optim.warmup_steps=99"]),
    "size": ("--model.backbone.patch_size 5", ["model.backbone.patch_size", "28"]),
    "seed": ("--seed_everything -1", ["seed_everything", "-1"]),
    "variant": ("--variant a/b", ["variant=a/b"]),
    "logger": ("--trainer.logger true", ["trainer.logger", "wandb"]),
    "thresholds": ("--diagnostics.thresholds.nop_max 0.9", ["diagnostics.thresholds.nop_max"]),
    "precision": ("--trainer.precision bf16-true", ["trainer.precision=bf16-true"]),
}
KEYS = {
    "unknown": ("--model.backbone.gates 1", ["model.backbone.gates"]),
    "unknown group": ("--modle.backbone.registers 1", ["modle.backbone.registers"]),
    "abbreviated": ("--model.backbone.regis 4", ["model.backbone.regis"]),
    "abbreviated, top level": ("--vari x", ["vari"]),
    "no dashes": ("registers=4", ["registers=4"]),
    "missing config": ("--config {nothing}.yaml", ["nothing.yaml"]),
    "bad YAML": ("--config {files}/bad.yaml", ["bad.yaml"]),
    "unknown key in YAML": ("--config {files}/unknown.yaml", ["model.backbone.gates"]),
    "unset variable": (f"--config {CONFIGS}/data/imagenet.yaml", ["data.source.train", "IMAGENET_TRAIN"]),
}
MODELS = {
    "unknown": ("--model.backbone.name vit_smal_patch16_224", ["model.backbone.name", "vit_small_patch16_224"]),
    "swin": (f"--model.backbone.name swin_tiny_patch4_window7_224 --data.image.size 224 {COLOR} {FOLDER}", ["Swin"]),
    "convnext": (f"--model.backbone.name convnext_atto {PLAIN}", ["model.backbone.name=convnext_atto", "ConvNeXt"]),
    "resnet": ("--model.backbone.name resnet18", ["model.backbone.name=resnet18", "ResNet"]),
    "cait": ("--model.backbone.name cait_xxs24_224 --data.image.size 32", ["TalkingHeadAttn", "diagnostics"]),
    "xcit": ("--model.backbone.name xcit_nano_12_p16_224 --data.image.size 32", ["XCA", "diagnostics"]),
    "mixer": ("--model.backbone.name mixer_s32_224 --data.image.size 32", ["MlpMixer", "diagnostics"]),
    "gate in EVA": (
        f"--model.backbone.name eva02_tiny_patch14_224 {ATTENTION}.gate headwise",
        ["model.backbone.attention", "eva02_tiny_patch14_224", "Eva"],
    ),
    "sink in DINOv3": (
        f"--model.backbone.name vit_small_patch16_dinov3 {ATTENTION}.sink learned {TINY}",
        ["model.backbone.attention", "vit_small_patch16_dinov3"],
    ),
    "registers in BEiT": (
        f"--model.backbone.name beit_base_patch16_224 --model.backbone.registers 4 {TINY}",
        ["model.backbone.registers", "beit_base_patch16_224", "Beit"],
    ),
}
WEIGHTS = {
    "missing": ("--model.backbone.checkpoint {nothing}.pt", ["model.backbone.checkpoint", "nothing.pt"]),
    "truncated": ("--model.backbone.checkpoint {files}/cut.safetensors", ["model.backbone.checkpoint", "truncated"]),
    "another shape": ("--model.backbone.checkpoint {files}/other.pt", ["model.backbone.checkpoint", "other.pt"]),
    "another variant": ("--model.backbone.checkpoint {run}/checkpoints/last.ckpt", ["model.backbone.checkpoint"]),
    "resume, missing": ("--ckpt_path {nothing}.ckpt", ["ckpt_path", "nothing.ckpt"]),
    "resume, truncated": ("--ckpt_path {files}/cut.ckpt", ["ckpt_path", "cut.ckpt", "truncated"]),
    "resume, weights only": ("--ckpt_path {files}/other.pt", ["ckpt_path", "other.pt"]),
    "resume, another variant": ("--ckpt_path {run}/checkpoints/last.ckpt", ["model.backbone.", "checkpoint"]),
    "resume, another optimizer": (
        f"--config {CONFIGS}/gate_reg.yaml --ckpt_path {{run}}/checkpoints/last.ckpt --model.optim.layer_decay 0.5",
        ["model.optim.layer_decay", "checkpoint"],
    ),
}
DATA = {
    "missing shard": (shards("missing"), ["train-0001.tar"]),
    "missing shard, stream": (f"{shards('missing')} {STREAM}", ["train-0001.tar"]),
    "truncated shard": (shards("cut"), ["train-0001.tar", "truncated"]),
    "not a tar file": (shards("garbage"), ["train-0000.tar"]),
    "not a tar file, stream": (f"{shards('garbage')} {STREAM}", ["train-0000.tar"]),
    "fewer shards than readers": (
        f"{shards('set')} {STREAM} --data.num_workers 3",
        ["data.source.val", "data.num_workers=3"],
    ),
    "empty split": (f"{shards('set')} {SOURCE}.val {{files}}/empty.tar", ["data.source.val", "empty"]),
    "no location": (f"{SOURCE}.format shards", ["data.source.train"]),
    "no matching file": (
        f"{SOURCE}.format shards {SOURCE}.train {{nothing}}-*.tar",
        ["data.source.train", "nothing-*.tar"],
    ),
    "missing folder": (f"{SOURCE}.format folder {SOURCE}.train {{nothing}}", ["data.source.train", "nothing"]),
    "label": (f"{SOURCE}.num_classes 5", ["data.source.num_classes=5", "10 classes"]),
    "label, shards": (f"{shards('set')} {SOURCE}.num_classes 5", ["train-0000.tar", "data.source.num_classes"]),
    "label, folder": (f"{COLOR} {FOLDER} {SOURCE}.num_classes 9", ["data.source.num_classes=9", "has 10 classes"]),
    "channels": (FOLDER, ["train: 0/", "3 channels", "data.image.in_chans"]),
    "channels, shards": (shards("set").replace(COLOR, ""), ["train-0000.tar", "data.image.in_chans"]),
    "channels of one probe image": (f"{COLOR} {FOLDER} {SOURCE}.val {{files}}/mixed", ["odd", "data.image.in_chans"]),
    "mean": ("--data.image.in_chans 3", ["data.image.mean", "in_chans"]),
    "batch": (f"{COLOR} {FOLDER} --data.batch_size 41", ["data.batch_size=41", "40"]),
}
CASES = {
    f"{group}: {name}": case
    for group, cases in (("value", VALUES), ("key", KEYS), ("model", MODELS), ("weights", WEIGHTS), ("data", DATA))
    for name, case in cases.items()
}
LATE = [
    "value: warm-up",
    "model: cait",
    "weights: resume, another variant",
    "data: truncated shard",
    "data: missing shard, stream",
    "data: channels of one probe image",
]
"""Cases that are detected last, just before training starts."""
