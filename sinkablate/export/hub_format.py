"""The hub format: any variant, as a folder that `sinkablate.create_model` reads."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.export.trained import TrainedModel
from sinkablate.files.writing import write_json
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import CONFIG, KEY, LOCAL, WEIGHTS, description, exported_model


def write_hub(trained: TrainedModel, folder: Path) -> None:
    """Write the weights and the configuration of a run's model into a folder.

    `config.json` has the layout of timm's, but names an architecture that timm does not know, so that timm refuses the
    folder instead of loading a part of the model.

    Raises:
        UserError: The model was created from a folder of timm, with arguments that a variant cannot hold.
    """
    if trained.inexpressible:
        raise UserError(
            f"format=hub: the model was created with {', '.join(trained.inexpressible)} of timm, which a "
            "variant cannot hold; use --format timm"
        )
    weights = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt", KEY: __version__})
    labels = {"label_names": list(trained.classes)} if trained.classes else {}
    layout = {"architecture": KEY, "num_classes": trained.description.num_classes}
    write_json(folder / CONFIG, {**layout, **labels, KEY: description(trained.description)}, sort=False)


def read_hub(folder: Path) -> nn.Module:
    """Build the model in a folder, as `sinkablate.create_model` does."""
    exported = exported_model(f"{LOCAL}:{folder}")
    assert exported is not None, f"{folder}: not an exported model"
    return build_backbone(
        exported.backbone, num_classes=exported.num_classes, in_chans=exported.in_chans, img_size=exported.img_size
    )
