"""The model card: what the model is, how to load it, its data, recipe, scores and sinks.

Nothing in it names a person, a machine or a path: of the run's configuration only settings of model, training and
preprocessing are quoted, and data are described by their format and number.
"""

from collections.abc import Sequence
from dataclasses import asdict

import yaml
from huggingface_hub import ModelCardData

from sinkablate import __version__
from sinkablate.config import (
    BackboneConfig,
    ImageConfig,
    ImageSize,
    SourceConfig,
    ThresholdConfig,
    build,
    flat,
    height_and_width,
)
from sinkablate.diagnostics.counting import DEFAULT_BLOCKS
from sinkablate.diagnostics.rules import rules, scalar_prefix
from sinkablate.export.recipe import changed, recipe
from sinkablate.export.trained import LOCAL_FILE, LOCAL_FOLDER, TrainedModel

DATA = {
    "embedded": "the 10,000 Fashion-MNIST images that come with sinkablate",
    "scenes": "scenes of several Fashion-MNIST garments, which come with sinkablate",
    "shards": "images in WebDataset shards",
    "folder": "images in one folder per class",
}
"""What each format of `data.source` is."""
SCORES = {
    "val/acc1": ("validation accuracy", ".2%"),
    "val/acc5": ("validation top-5 accuracy", ".2%"),
    "val/loss": ("validation loss", ".4f"),
    "val/effective_rank": ("effective rank of the features", ".1f"),
    "knn/acc1": ("accuracy of k nearest neighbors", ".2%"),
    "linear/acc1": ("accuracy of a linear probe", ".2%"),
    "segmentation/miou": ("mean intersection over union of a linear segmentation", ".2%"),
}
"""Numbers of the summary and of the evaluation that a card lists: their names and formats."""
TOKENS = {"cls": "CLS", "register": "registers", "patch": "patches"}
MARK = "exported with sinkablate"
"""Words that every card contains; a folder with them is an earlier export."""
CITATION = (
    "The sink diagnostics and their rules follow [arXiv 2606.08105](https://arxiv.org/abs/2606.08105); please cite it. "
    f"Trained, measured and {MARK} {__version__}."
)


def model_card(trained: TrainedModel, form: str, repository: str | None = None) -> str:
    """Return the content of `README.md`.

    Args:
        trained: The model and its run.
        form: `timm` or `hub`.
        repository: Name of the repository that the folder is uploaded to; None if it is not known.
    """
    sections = {
        "Use": _use(trained, form, f"hf-hub:{repository}" if repository else "local-dir:FOLDER"),
        "Data": _data(trained),
        "Recipe": _recipe(trained),
        "Results": _results(trained),
        "Attention sinks": _sinks(trained),
        "Citation": CITATION,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"---\n{_metadata(trained, form)}\n---\n\n# {_title(trained)}\n\n{_summary(trained)}\n\n{body}\n"


def _metadata(trained: TrainedModel, form: str) -> str:
    """Return the block at the top of the card, which a model hub reads."""
    task = "image-classification" if trained.description.num_classes else "image-feature-extraction"
    name = trained.initial.partition("@")[0]
    base = None if name in ("", LOCAL_FILE, LOCAL_FOLDER) else name if "/" in name else f"timm/{name}"
    return ModelCardData(
        library_name="timm" if form == "timm" else "sinkablate",
        tags=["vision-transformer", "attention-sinks", "sinkablate", *(["timm"] if form == "timm" else [])],
        pipeline_tag=task,
        base_model=base,
    ).to_yaml()


def _title(trained: TrainedModel) -> str:
    return f"{trained.variant} ({trained.description.backbone.name})"


def _summary(trained: TrainedModel) -> str:
    """Return one paragraph: what the model is, and which weights these are."""
    description = trained.description
    count = sum(parameter.numel() for parameter in trained.model.parameters())
    outcome = (
        f"It maps an image to the logits of {description.num_classes:,} classes."
        if description.num_classes
        else "It maps an image to a feature vector and has no classifier."
    )
    values = flat(changed(BackboneConfig, asdict(description.backbone) | {"name": BackboneConfig.name}))
    listed = ", ".join(f"`{key}: {value}`" for key, value in values.items())
    changes = f" Changes to timm's model: {listed}." if listed else ""
    start = f" The training started from pretrained weights ({trained.initial})." if trained.initial else ""
    average = " The weights are a moving average over the training steps." if trained.averaged else ""
    state = {
        "finished": "",
        "unfinished": " The run had not finished.",
        "diverged": " The run was stopped later, when its loss became NaN or infinite.",
    }[trained.state]
    return (
        f"A vision transformer with {count:,} parameters for images of {_pixels(description.img_size)} "
        f"and {description.in_chans} channel{'s' * (description.in_chans > 1)}, after {trained.step:,} steps of "
        f"training. {outcome}{changes}{start}{average}{state}"
    )


def _use(trained: TrainedModel, form: str, name: str) -> str:
    """Return the code that loads the model and prepares an image."""
    image = trained.description.image
    mode = {1: "L", 3: "RGB"}[image.in_chans]
    if form == "timm":
        lines = [
            "import timm",
            "import torch",
            "from PIL import Image",
            "",
            f'model = timm.create_model("{name}", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
            f'image = transform(Image.open("image.png").convert("{mode}"))',
            "with torch.inference_mode():",
            "    output = model(image[None])",
        ]
    else:
        lines = [
            "import sinkablate as sa",
            "",
            f'model = sa.create_model("{name}").eval()',
            'm = sa.measure(model, "photos")  # a folder of images; the preprocessing comes with the model',
        ]
    code = "\n".join(lines)
    gated = trained.description.backbone.attention.gate != "none" and form == "timm"
    gates = " timm builds the model as a `NaFlexVit` with gated attention, in which a gate has one value per channel."
    preparation = (
        f"Images are resized so that {_resized_to(image)} ({image.interpolation}), cropped to the central "
        f"{_pixels(image.size)}, and normalized with mean {list(image.mean)} and standard deviation {list(image.std)}."
    )
    return f"```python\n{code}\n```\n\n{preparation}{gates if gated else ''}"


def _resized_to(image: ImageConfig) -> str:
    """Describe the size of an image before it is cropped."""
    height, width = (f"{side / image.crop_pct:.0f}" for side in height_and_width(image.size))
    square = f"the shorter side has {height} pixels"
    return square if height == width else f"they just cover {height} x {width} pixels"


def _pixels(size: ImageSize) -> str:
    height, width = height_and_width(size)
    return f"{height} x {width} pixels"


def _data(trained: TrainedModel) -> str:
    """Describe the training images without their location."""
    source: SourceConfig = build(SourceConfig, trained.config["data"]["source"] | {"train": "", "val": "", "test": ""})
    count = trained.summary.get("train_images")
    number = f"{count:,} " if isinstance(count, int) and source.format in ("shards", "folder") else ""
    classes = f"\n\nClasses, in the order of the logits: {', '.join(trained.classes)}." if trained.classes else ""
    return f"Trained on {number}{DATA[source.format]}.{classes}"


def _recipe(trained: TrainedModel) -> str:
    """Quote the settings of the run that differ from the defaults, as a config for `fit`."""
    text = yaml.safe_dump(recipe(trained), sort_keys=False, allow_unicode=True).rstrip()
    return f"A config for `sinkablate fit`, without the location of the data:\n\n```yaml\n{text}\n```"


def _results(trained: TrainedModel) -> str:
    """List the scores of the run and of its evaluation."""
    numbers = trained.summary | trained.evaluation
    rows = [
        (label, format(value, form))
        for key, (label, form) in SCORES.items()
        if isinstance(value := numbers.get(key), int | float)
    ]
    return _table(("score", "value"), rows) if rows else ""


def _sinks(trained: TrainedModel) -> str:
    """Summarize the sinks, norms and gates that the run measured last."""
    summary = trained.summary
    counts = ("events", "nop", "broadcast", "other")
    rows = {}
    for rule in rules(ThresholdConfig()):
        prefix = scalar_prefix(rule.name)
        if "fit" in rule.shown and f"{prefix}/events" in summary:
            rows[rule.name] = (f"`{rule.name}`", *(f"{summary[f'{prefix}/{count}']:.2f}" for count in counts))
    if not rows:
        return ""
    sentences = [
        "A head has a sink event on an image when many of its queries attend to the same token. The event is a NOP if "
        "the value of that token is almost zero, so that nothing is added, and a broadcast if it is as large as other "
        "values, so that all queries receive the same vector. Events per image, summed over heads and "
        f"{DEFAULT_BLOCKS} (the only block of a model of one block), at the end of training:",
        _table(("rule", "events", "NOP", "broadcast", "other"), list(rows.values())),
    ]
    facts = [f"- {line}" for line in summary.get("rules", ()) if line.partition(":")[0] in rows]
    facts += [
        f"- token norm of {name}, mean / 99th percentile: {summary[f'norm/{kind}_mean']:.1f} / "
        f"{summary[f'norm/{kind}_p99']:.1f}"
        for kind, name in TOKENS.items()
        if f"norm/{kind}_mean" in summary
    ]
    if "gate/open" in summary:
        facts.append(f"- mean openness of the gates: {summary['gate/open']:.2f}")
    if trained.averaged:
        facts.append("- measured with the last weights, not their moving average")
    return "\n\n".join((*sentences, "\n".join(facts)))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table whose columns after the first are numbers."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
