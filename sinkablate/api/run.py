"""Load a trained run for further use in Python."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sinkablate.api.images import OWN_TRANSFORM, Transform
from sinkablate.config import ThresholdConfig
from sinkablate.config.types import checked
from sinkablate.data.probe import ProbeSet
from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.model import LoadedModel
from sinkablate.run.reading import read_yaml


@dataclass(frozen=True)
class Run:
    """A trained run, as `load_run` returns it."""

    directory: Path
    """The directory of the run."""
    config: dict[str, Any] = field(repr=False)
    """The configuration of the run: the nested keys of `config.yaml`."""
    loaded: LoadedModel = field(repr=False)
    """The model with its preprocessing, as the commands use it."""

    @property
    def model(self) -> nn.Module:
        """The model with the weights of the last checkpoint, in eval mode on the CPU."""
        return self.loaded.model

    @property
    def transform(self) -> Transform | None:
        """From a PIL image to the model's input (C, H, W); None for a toy, whose inputs are sequences."""
        return self.loaded.transform

    @property
    def thresholds(self) -> ThresholdConfig:
        """The thresholds that the run was measured with while it trained."""
        return self.loaded.thresholds

    @property
    def images(self) -> Tensor:
        """The run's probe images (n, C, H, W), or sequences (n, N, D) of a toy; they are read on first use."""
        return self.probe_set.images

    @cached_property
    def probe_set(self) -> ProbeSet:
        """The probe images with their names and classes."""
        assert self.loaded.probe_set is not None
        return self.loaded.probe_set(self.loaded.probe_images)


@checked
def load_run(directory: str | Path, *, trust: bool = False) -> Run:
    """Load the last checkpoint of a run together with its preprocessing, probe images and configuration.

    Args:
        directory: The directory of the run.
        trust: Allow shell commands that the run's configuration uses to read its images.

    Returns:
        The run with its `.model` (in eval mode, on the CPU), `.transform`, `.images` (n, C, H, W) and `.config`.

    Raises:
        UserError: The directory is not that of a run, or its checkpoint is damaged.

    Example::

        run = sa.load_run("runs/vit_mini-gate_reg-s0")
        m = sa.measure(run.model, run.images)
    """
    loaded = load_from_run(str(directory), trust=trust)
    if loaded.transform is not None:
        setattr(loaded.model, OWN_TRANSFORM, loaded.transform)
    return Run(Path(directory), read_yaml(Path(directory) / "config.yaml"), loaded)
