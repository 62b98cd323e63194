"""Groups of keys for `--help` and the first checks, which run before any framework is imported.

The parser knows every key; a test compares the names here with the parser's.
"""

from textwrap import fill

from sinkablate.files.shipped import shipped_names

GROUPS = {
    "trainer": "Lightning's Trainer: epochs, devices, precision, accumulation, limits",
    "model": "the model and its training",
    "model.backbone": "the vision transformer and the changes made to it (task: classify, lejepa)",
    "model.backbone.attention": "score function, sink and gate",
    "model.backbone.pathway": "a global pathway in addition to attention",
    "model.optim": "optimizer and schedule",
    "model.loss": "loss and label mixing (task: classify)",
    "model.retrofit": "training of what was added to pretrained weights (task: classify)",
    "model.ema": "moving average of the weights (task: classify)",
    "model.common_mode": "penalty on the part of attention's updates common to all tokens",
    "model.lejepa": "objective, projector and probe (task: lejepa)",
    "model.toy": "the toy task and its mechanism (task: toy)",
    "data": "batches and loader processes",
    "data.source": "where images are stored and how they are read",
    "data.image": "size, channels and normalization",
    "data.augment": "augmentation of training images",
    "data.views": "several views of each training image",
    "wandb": "Weights & Biases",
    "diagnostics": "how often and on which images sinks are measured",
    "diagnostics.thresholds": "thresholds of the sink rules",
    "stability": "definition of a spike of the gradient norm",
    "checkpoint": "when checkpoints are saved",
}
"""One line for each group of keys; which groups exist depends on `task`."""

MOST_USED = {
    "config FILE": "YAML file of keys; if there are several, later ones take precedence",
    "task NAME": "classify (default), lejepa or toy",
    "run_dir DIR": "directory of the run (default: runs/<model>-<variant>-s<seed>)",
    "variant NAME": "name of the variant in run names",
    "seed_everything N": "seed of parameters, data order and augmentation",
    "ckpt_path FILE": "checkpoint to resume from; `auto`: the latest one in the run directory",
    "overwrite": "start over in a directory that contains a run",
    "trainer.max_epochs N": "epochs of training",
    "trainer.devices N": "GPUs or processes",
    "trainer.precision NAME": "32-true, bf16-mixed, ...",
    "data.source.train PATH": "training images; see `--help data.source`",
    "data.batch_size N": "images per step and process",
    "model.backbone.name NAME": "timm's name for the model, or vit_mini",
    "model.optim.lr X": "peak learning rate",
    "wandb.mode MODE": "auto (default), online, offline or disabled",
    "print_config": "check and print all keys without running anything",
}
"""The most common keys, with a placeholder for the value."""

SINGLE = (
    "config",
    "print_config",
    "help",
    "seed_everything",
    "task",
    "variant",
    "run_dir",
    "sweep",
    "overwrite",
    "on_checkpoint_failure",
    "ckpt_path",
    "weights_only",
)
"""Keys that are in no group."""
OF_ONE_COMMAND = {
    "validate": ("verbose", "run", "trust"),
    "test": ("verbose", "run", "trust"),
    "predict": ("return_predictions", "run", "trust"),
    "plan": ("images", "device", "efficiency", "run", "trust", "json"),
}


def first_names(command: str) -> set[str]:
    """Return every valid first part of a command's keys, up to the first dot."""
    return {*SINGLE, *(group.split(".")[0] for group in GROUPS), *OF_ONE_COMMAND.get(command, ())}


def overview(command: str, purpose: str) -> str:
    """Return the text of `--help`: the most used keys and the groups of all keys."""
    used = "\n".join(f"  --{key:<26} {line}" for key, line in MOST_USED.items())
    groups = "\n".join(f"  {group:<28} {line}" for group, line in GROUPS.items())
    names = ", ".join(shipped_names("configs"))
    configs = fill(names, 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return (
        f"usage: sinkablate {command} [--config FILE.yaml ...] [--KEY VALUE ...]\n\n{purpose}\n\n"
        f"the most used keys:\n{used}\n\n"
        f"all keys, by group:\n{groups}\n\n"
        f"shipped configs, which have a name (`--config gate_reg`):\n{configs}\n\n"
        f"`sinkablate {command} --help GROUP` describes the keys of a group, `--help all` every key."
    )
