"""The rows of `benchmarks.gpu`: what is measured, at which size, and the targets."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from benchmarks import checkpoint, fit, kernels, mechanisms
from benchmarks.interleave import DEVICE, Spread, interleave, peak_memory
from benchmarks.kernels import Shape
from benchmarks.measuring import THRESHOLDS, compiled_measuring_pass, make_model, measuring_pass, synchronizations
from benchmarks.mechanisms import Setting
from sinkablate.callbacks.sinks import SinkDiagnostics
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.vit.anatomy import features


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    label: str
    time: str
    ratio: Spread | None = None
    target: str = ""
    percent: bool = False
    """Whether the ratio is a share in percent."""


@dataclass(frozen=True)
class Row:
    """What is measured together: it is started if there is enough time, and it can be chosen by its name."""

    name: str
    seconds: float
    """Estimated time on an H100, including compilation."""
    measure: Callable[[], Iterator[Line]]


@dataclass(frozen=True)
class Diagnosed:
    """A model that is measured."""

    label: str
    model: str
    img_size: int
    batch: int
    target: float


@dataclass(frozen=True)
class Sizes:
    """Sizes of everything that is measured."""

    rounds: int
    backend: str
    """Backend of `torch.compile`, except for `fit`."""
    short: Setting
    long: Setting
    diagnosed: tuple[Diagnosed, ...]
    shapes: tuple[Shape, ...]
    probe_images: int
    checkpoint: tuple[str, int, int]
    """Model, size of the images and batch."""
    training: fit.Training
    trainings: int
    """Rounds of `fit` and of the plain loop, after one that is discarded on a GPU."""
    compiles_training: bool = True
    """Whether `fit` and the plain loop really compile if they are told to, which takes a minute on a CPU."""


def full(workers: int) -> Sizes:
    """Return the sizes of the table, with this number of processes that load images."""
    return Sizes(
        rounds=15,
        backend="inductor",
        short=Setting("vit_small_patch16_224", 224, 256, bf16=True),
        long=Setting("vit_small_patch14_dinov2", 518, 16, bf16=True),
        diagnosed=(
            Diagnosed("ViT-S/14, 224 px, batch 32", "vit_small_patch14_dinov2", 224, 32, 2.0),
            Diagnosed("ViT-L/14, 224 px, batch 16", "vit_large_patch14_dinov2", 224, 16, 1.5),
            Diagnosed("ViT-S/14, 518 px, batch 4", "vit_small_patch14_dinov2", 518, 4, 3.0),
        ),
        shapes=kernels.SHAPES,
        probe_images=64,
        checkpoint=("vit_base_patch16_224", 224, 128),
        training=fit.Training("vit_small_patch16_224", 224, 256, workers, epochs=2, bf16=True),
        trainings=2,
    )


TINY = Sizes(
    rounds=2,
    backend="aot_eager",
    short=Setting("vit_mini", 28, 2),
    long=Setting("vit_mini", 35, 2),
    diagnosed=(Diagnosed("ViT-Mini, 28 px, batch 2", "vit_mini", 28, 2, 2.0),),
    shapes=(Shape(19, 2), Shape(37, 2)),
    probe_images=4,
    checkpoint=("vit_mini", 28, 2),
    training=fit.Training(batch=8, steps=10),
    trainings=1,
    compiles_training=False,
)
"""Sizes at which every row runs in seconds on a CPU; the numbers mean nothing."""

SINKS_AND_GATES = {
    "gate headwise": ("1.05", "1.03"),
    "gate elementwise": ("1.10", "1.06"),
    "sink zero": ("1.05", "1.05"),
    "sink learned": ("1.05", "1.05"),
    "sink kv_bias": ("1.05", "1.05"),
}
"""Mechanism -> largest ratio to timm without and with `torch.compile`."""
SCORES = ("relu", "sigmoid", "polynomial", "pointwise softplus", "clipped_softmax")
TARGETS = SINKS_AND_GATES | dict.fromkeys(SCORES, ("", "1.15"))
LONG_TARGET = "1.5"


def milliseconds(times: list[float]) -> str:
    """Format the median of seconds."""
    return f"{statistics.median(times) * 1e3:.2f} ms"


def gib(size: float) -> str:
    """Format a size in GiB; empty if it was not measured."""
    return "" if math.isnan(size) else f", {size:.2f} GiB"


@cache
def training_step_of_timm(setting: Setting) -> Callable[[], None]:
    """Return the training step with which all mechanisms are compared; it is compiled once."""
    return mechanisms.training_step(mechanisms.build("timm", setting), setting)


def mechanism(name: str, setting: Setting, rounds: int, target: str) -> Iterator[Line]:
    """Measure the forward and backward pass of a mechanism relative to timm's model."""
    sides = {
        "timm": training_step_of_timm(setting),
        name: mechanisms.training_step(mechanisms.build(name, setting), setting),
    }
    times = interleave(sides, rounds, warmup=3)
    how = f"{setting.img_size} px, {'compiled' if setting.backend else 'eager'}"
    label = f"{name}, {how} (timm: {milliseconds(times['timm'])}{gib(peak_memory(sides['timm']))})"
    time = milliseconds(times[name]) + gib(peak_memory(sides[name]))
    yield Line(label, time, Spread.of_ratios(times[name], times["timm"]), target)


def kernel(name: str, shapes: tuple[Shape, ...], rounds: int) -> Iterator[Line]:
    """Measure each kernel of a mechanism, and its memory per image, at every length."""
    for shape in shapes:
        runs = kernels.kernels(name, shape)
        times = interleave(runs, rounds, warmup=3)
        for side, run in runs.items():
            memory = gib(peak_memory(run))
            label = f"{name}, attention alone, {shape.tokens} tokens, batch {shape.batch}, kernel: {side}"
            yield Line(label, milliseconds(times[side]) + memory, Spread.of_ratios(times[side], times["explicit"]))


def diagnosis(size: Diagnosed, rounds: int, backend: str | None) -> Iterator[Line]:
    """Measure the measuring pass relative to a plain forward pass in fp32; with a backend, partly compiled."""
    model = make_model(size.model, size.img_size)
    images = torch.randn(size.batch, 3, size.img_size, size.img_size, device=DEVICE)
    recorder = Recorder(THRESHOLDS)
    ours = partial(measuring_pass, model, images, recorder)
    sides: dict[str, Callable[[], object]] = {"forward": lambda: features(model, images), "measuring pass": ours}
    if backend:
        sides["measuring pass, quantities compiled"] = compiled_measuring_pass(model, images, backend)
    with measurement_mode(model):
        times = interleave(sides, rounds, warmup=3)
        for name in list(sides)[1:]:
            spread, plain = Spread.of_ratios(times[name], times["forward"]), milliseconds(times["forward"])
            label = f"{size.label}: {name} (forward: {plain})"
            yield Line(label, milliseconds(times[name]), spread, f"{size.target:.1f}")
        if DEVICE == "cuda" and not backend:
            yield Line(f"{size.label}: synchronizations per pass", str(synchronizations(ours)), target="0")


def checkpoints(model: str, img_size: int, batch: int) -> Iterator[Line]:
    """Measure what a checkpoint every 100 steps costs."""
    measured = checkpoint.measure(model, img_size, batch, rounds=3)
    spread = Spread.of([measured.cost(copy) for copy in measured.copies])
    label = (
        f"checkpoint every {checkpoint.EVERY} steps of {milliseconds(measured.steps)} "
        f"(copy {milliseconds(measured.copies)}, on disk after {statistics.median(measured.writes):.1f} s)"
    )
    yield Line(label, "", spread, "1 %", percent=True)


def diagnostics(setting: Setting, images: int, rounds: int) -> Iterator[Line]:
    """Measure how long training waits for diagnostics every 50 steps."""
    model: nn.Module = mechanisms.build("identity", setting)
    step = mechanisms.training_step(model, setting)
    sinks = SinkDiagnostics(torch.randn(images, 3, setting.img_size, setting.img_size))
    times = interleave({"step": step, "diagnostics": lambda: sinks.measure(model, 0)}, rounds, warmup=2)
    fifty = [50 * seconds for seconds in times["step"]]
    label = f"diagnostics on {images} images every 50 steps of {milliseconds(times['step'])}"
    yield Line(label, milliseconds(times["diagnostics"]), Spread.of_ratios(times["diagnostics"], fifty), "2 %", True)


def trainings(training: fit.Training, rounds: int, compiles: bool) -> Iterator[Line]:
    """Measure `fit` relative to a plain loop over timm's model."""
    torch._dynamo.reset()
    with torch.compiler.set_stance("default" if compiles else "force_eager"):
        # a GPU's first round allocates; where models are compiled, the first steps do not count
        speeds = fit.compare(training, rounds, discarded=int(DEVICE == "cuda" and not training.compile))
    loop, ours = (statistics.median(speeds[name]) for name in ("plain loop", "fit"))
    label = f"fit, {'compiled' if training.compile else 'eager'} (plain loop: {loop:.0f} images/s)"
    yield Line(label, f"{ours:.0f} images/s", Spread.of_ratios(speeds["fit"], speeds["plain loop"]), "≥ 0.95")
