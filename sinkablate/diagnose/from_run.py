"""Load the last checkpoint of a run, with the images or sequences that the run itself measures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.config import (
    AugmentConfig,
    BackboneConfig,
    ImageConfig,
    SourceConfig,
    ThresholdConfig,
    ToyConfig,
    ViewsConfig,
    build,
)
from sinkablate.config.checks import with_tuples
from sinkablate.data.probe import ProbeSet
from sinkablate.data.transforms import eval_transform
from sinkablate.diagnose.model import LoadedModel, measurable, preprocessing_of, require_finite, without_weights
from sinkablate.errors import UserError, shortened
from sinkablate.files.writing import as_stored
from sinkablate.run.checkpoints import check_checkpoint
from sinkablate.run.directory import CONFIG, last_checkpoint
from sinkablate.run.identity import run_id
from sinkablate.run.reading import read_yaml
from sinkablate.run.trust import require_trust
from sinkablate.toys.model import build_toy
from sinkablate.toys.tasks import ToyTask, evaluation_tokens
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.checkpoint_files import TRAINED, read_checkpoint
from sinkablate.vit.drift import STATE_KEY
from sinkablate.vit.hub_folder import LOCAL


def load_from_run(run: str, *, trust: bool = False) -> LoadedModel:
    """Load the last checkpoint of a run, with the data of the run.

    Args:
        run: Directory of the run.
        trust: Allow shell commands that the run's configuration uses to read its shards.

    Raises:
        UserError: The directory holds no run, its configuration would execute a command, or its checkpoint is
            truncated or belongs to another model.
    """
    directory = Path(run)
    if not run or not (directory / CONFIG).is_file():
        raise UserError(f"run={run} holds no {CONFIG}: not the directory of a run")
    path = last_checkpoint(directory)
    if not path.is_file():
        raise UserError(f"run={run} has no checkpoint ({path})")
    try:
        stored = read_yaml(directory / CONFIG)
    except UserError as error:
        raise UserError(f"run={run}: {error}") from None
    if not trust:
        require_trust(stored, f"run={run}: config.yaml")
    check_checkpoint(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    saved, state = checkpoint["hyper_parameters"], read_checkpoint(str(path), TRAINED).weights
    make = _toy if "toy" in saved else _backbone
    try:
        thresholds = build(ThresholdConfig, with_tuples(stored["diagnostics"]["thresholds"]))
        images = _whole_number(stored["diagnostics"]["images"], "diagnostics.images")
        _require_architecture(run, saved)
        loaded = make(saved, stored, state)
    except KeyError as error:
        raise UserError(f"run={run}: config.yaml is not the configuration of a run (no key {error})") from None
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"run={run}: config.yaml is not the configuration of a run ({shortened(str(error))})") from None
    except RuntimeError as error:
        raise UserError(f"run={run}: the checkpoint belongs to another model ({shortened(str(error))})") from None
    require_finite(loaded.model, f"run={run}: {path}")
    known = {"weights": str(path), "step": int(checkpoint["global_step"])}
    return replace(
        loaded,
        description=as_stored(loaded.description | known),
        thresholds=thresholds,
        probe_images=images,
        drift=checkpoint.get("callbacks", {}).get(STATE_KEY, {}),
        run_id=run_id(Path(run)),
    )


def _whole_number(value: Any, key: str) -> int:
    """Return an unchecked value of a configuration as a positive integer.

    Raises:
        ValueError: It is not a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key}={value} is not a positive integer")
    return value


def _require_architecture(run: str, saved: dict[str, Any]) -> None:
    """Refuse a run whose model can only be built from the folder of timm that it started from, if that is missing.

    Args:
        run: Directory of the run.
        saved: The hyperparameters in its checkpoint, which name the folder only if timm has arguments there for which
            `BackboneConfig` has no key.

    Raises:
        UserError: There is no such folder any more.
    """
    source, _, folder = str(saved.get("backbone", {}).get("name")).partition(":")
    config = Path(folder) / "config.json"
    if source == LOCAL and not config.is_file():
        raise UserError(
            f"run={run}: the model is described in {config}, in the folder that the run started from, which does not "
            "exist any more; put the folder back"
        )


def _backbone(saved: dict[str, Any], stored: dict[str, Any], state: dict[str, Tensor]) -> LoadedModel:
    """Build a vision transformer with the trained weights, and its validation images."""
    from sinkablate.data.datamodule import ImageData  # imports Lightning, which other models do not need

    config = without_weights(build(BackboneConfig, with_tuples(saved["backbone"])))
    shape = {name: saved[name] for name in ("num_classes", "in_chans", "img_size")}
    model, untrained = _models(lambda seed: build_backbone(config, **shape, seed=seed), saved["seed"], state)
    kinds = {"source": SourceConfig, "image": ImageConfig, "augment": AugmentConfig, "views": ViewsConfig}
    data = stored["data"] | {
        name: build(kind, with_tuples(stored["data"].get(name, {}))) for name, kind in kinds.items()
    }
    images: ImageConfig = data["image"]
    module = ImageData(**data)

    def probe_set(count: int) -> ProbeSet:
        module.setup("validate")
        return module.probe_images(count)

    return LoadedModel(
        model=model,
        untrained=untrained,
        probe_set=probe_set,
        in_chans=images.in_chans,
        transform=eval_transform(images),
        source=data["source"],
        description={"model": f"{stored['variant']} ({config.name})", "preprocessing": preprocessing_of(images)},
    )


def _toy(saved: dict[str, Any], stored: dict[str, Any], state: dict[str, Tensor]) -> LoadedModel:
    """Build a toy transformer with the trained weights, and the sequences it is evaluated on."""
    config, seed = build(ToyConfig, with_tuples(saved["toy"])), saved["seed"]
    size = _whole_number(stored["data"]["eval_size"], "data.eval_size")
    model, untrained = _models(lambda seed: build_toy(config, seed), seed, state)

    def probe_set(count: int) -> ProbeSet:
        tokens = evaluation_tokens(config, seed, max(count, size))[:count]
        return ProbeSet(tokens, [f"sequence {number}" for number in range(count)])

    return LoadedModel(
        model=model,
        untrained=untrained,
        probe_set=probe_set,
        toy=ToyTask.draw(config, seed),
        token_names={"register": "null token"} if config.task == "nop" and config.prefix == 1 else {},
        description={"model": f"{stored['variant']} (toy {config.task})", "preprocessing": "none: sequences as drawn"},
    )


def _models(
    make: Callable[[int], nn.Module], seed: int, state: dict[str, Tensor]
) -> tuple[nn.Module, Callable[[int], nn.Module]]:
    """Return the trained model, and a function that makes an untrained one from a seed."""
    model = make(seed)
    model.load_state_dict(state)
    return measurable(model), lambda seed: measurable(make(seed))
