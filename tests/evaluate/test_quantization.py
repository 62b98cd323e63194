"""The task `quantization`, from the command line."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from dense_sets import columns, write_folders, write_image, write_mask
from evaluating import evaluate, numbers, table
from running import assert_refused, run
from sharing import Once
from torchvision.transforms import ToTensor
from variants import make, noise, perturbed

from sinkablate.config import EvaluationConfig, SourceConfig
from sinkablate.config.evaluation import QuantizationConfig
from sinkablate.diagnose.images import ImageSource
from sinkablate.diagnose.model import LoadedModel
from sinkablate.evaluate.cache import FeatureCache
from sinkablate.evaluate.quantization import NO_LABELS, quantization
from sinkablate.evaluate.quantization_images import quantization_images
from sinkablate.evaluate.quantization_rows import destroyed
from sinkablate.evaluate.quantized import calibrate
from sinkablate.evaluate.quantizer import Scheme
from sinkablate.evaluate.subject import Subject, subject_of
from sinkablate.evaluate.variants import Comparison, Damage, Masks, Treatment, Variant

FEW = ("--quantization.bits", "[8,3]", "--quantization.calibration", "4", "--quantization.limit", "12")
QUICK = (*FEW, "--quantization.layer_limit", "3", "--quantization.rule", "adaptive")


@pytest.fixture(scope="module")
def quantized(finished: Path, image_folder: Path, once: Once) -> Path:
    """A run, quantized."""

    def write(root: Path) -> None:
        labeled = [f"--data.source.{split}={image_folder / split}" for split in ("train", "val")]
        words = ("--data.source.format", "folder", *labeled, *QUICK)
        evaluate(root / "out", finished, *words, tasks="quantization").succeeded()

    return once("quantized", write) / "out"


def value(rows: pl.DataFrame, protocol: str, metric: str, item: str = "") -> float:
    found = rows.filter((pl.col("protocol") == protocol) & (pl.col("metric") == metric) & (pl.col("item") == item))
    return float(found["value"].item())


def test_every_scheme_layer_and_treatment_has_rows(quantized: Path) -> None:
    rows = table(quantized)
    assert set(rows["backbone"]) == {"model"}
    whole = rows.filter(pl.col("item") == "")
    schemes = {f"w{b}a{b}_{kind}" for b in (8, 3) for kind in ("static", "static_p99.99", "dynamic", "token")}
    assert set(whole["protocol"]) == {*schemes, "w8", "w3", "fp32"}
    assert whole["protocol"][0] == "w8a8_static"
    layers = rows.filter(pl.col("item") != "")
    assert set(layers["protocol"]) == {f"a{b}_{kind}" for b in (8, 3) for kind in ("static", "dynamic", "token")}
    assert layers["item"].n_unique() == 4 * 5 + 1 == value(rows, "fp32", "quantized_layers")
    shares = {name for name in whole["metric"] if name.startswith("share") and not name.endswith(("low", "high"))}
    assert shares == {f"share_{tokens}_{what}" for tokens in ("sinks", "random") for what in ("kept", "clipped")}
    assert {path.stem for path in (quantized / "figures").iterdir()} >= {"quantization", "quantization_layers"}
    assert numbers(quantized)["quantization/kl"] == value(rows, "w8a8_static", "kl")


def test_fewer_bits_and_coarser_ranges_do_more_damage(quantized: Path) -> None:
    rows = table(quantized)
    for scheme in ("static", "dynamic", "token"):
        assert value(rows, f"w3a3_{scheme}", "kl") > 10 * value(rows, f"w8a8_{scheme}", "kl")
    assert value(rows, "w3a3_static", "kl") > value(rows, "w3a3_token", "kl") > value(rows, "w3", "kl")
    repaired = 1 - value(rows, "w3a3_token", "kl") / value(rows, "w3a3_static", "kl")
    assert value(rows, "w3a3_token", "repaired") == pytest.approx(repaired)
    whole = rows.filter(pl.col("item") == "")
    for metric in ("kl", "cosine"):
        ends = [whole.filter(pl.col("metric") == f"{metric}{end}")["value"].to_numpy() for end in ("_low", "", "_high")]
        assert (np.diff(ends, axis=0) >= 0).all()


def test_without_sinks_their_treatment_changes_nothing(quantized: Path) -> None:
    rows = table(quantized)
    assert value(rows, "fp32", "sinks_per_image") == 0  # the run is too short for sinks
    shares = rows.filter(pl.col("metric").str.contains(r"^share_\w+_(kept|clipped)$"))
    assert (shares["value"] == 0).all()


def test_drop_is_the_difference_of_accuracies(quantized: Path) -> None:
    rows = table(quantized)
    drop = value(rows, "fp32", "acc1") - value(rows, "w3a3_static", "acc1")
    assert value(rows, "w3a3_static", "acc1_drop") == pytest.approx(drop)


@torch.no_grad()
def test_results_do_not_depend_on_batches() -> None:
    model, images = perturbed(make(num_classes=3)).eval(), noise(5, 1, 28, 28)
    targets = torch.tensor([0, 1, 2, 0, 1])
    sinks = Masks(*(noise(5, 17, seed=seed) > 0 for seed in (1, 2)))
    comparison = Comparison(model, calibrate(model, [images], model, 99.0), {("sinks", None): sinks})
    variants = [
        Variant(Scheme(4, 4, granularity), treatment)
        for granularity in ("static", "dynamic", "token")
        for treatment in (Treatment(), Treatment("sinks"), Treatment("sinks", kept=True))
    ]
    whole, full = comparison.damages(variants, [((0, 5), images)], targets)
    parts, full_in_parts = comparison.damages(variants, [((0, 2), images[:2]), ((2, 5), images[2:])], targets)
    assert full.correct is not None
    assert full.correct.tolist() == (model(images).argmax(-1) == targets).tolist()
    assert full_in_parts.correct is not None
    assert full.chance == 1 / 3
    np.testing.assert_array_equal(full.correct, full_in_parts.correct)
    for variant in variants:
        np.testing.assert_allclose(whole[variant].cosine, parts[variant].cosine, atol=1e-3)
        assert whole[variant].cosine.min() < 0.999
    first, clipped, kept = (whole[variant].cosine.mean() for variant in variants[3:6])
    assert first != clipped != kept  # a treatment changes something


def test_the_embedded_images_are_not_labeled_with_the_classes_of_any_model_of_ten(tmp_path: Path) -> None:
    notes: list[str] = []
    config = EvaluationConfig(quantization=QuantizationConfig(bits=(8,), calibration=2, limit=2, layer_limit=1))
    loaded = LoadedModel(
        model=make(num_classes=10).eval(),
        untrained=lambda seed: make(num_classes=10, seed=seed).eval(),
        in_chans=1,
        transform=ToTensor(),
        description={"model": "other", "preprocessing": "none"},
    )

    def subject(loaded: LoadedModel, source: SourceConfig | None = None) -> Subject:
        cache, device = FeatureCache(tmp_path), torch.device("cpu")
        return subject_of(loaded, config, cache, source, device=device, seeds=(0,), batch_size=2, note=notes.append)

    rows = quantization(subject(loaded))
    assert notes == [NO_LABELS]
    assert not any(row.metric.startswith("acc1") for row in rows)
    assert quantization_images(subject(loaded, SourceConfig())).targets is not None
    assert quantization_images(subject(replace(loaded, source=SourceConfig()))).targets is not None


def test_a_model_that_is_left_with_guesses_is_destroyed() -> None:
    """A weak model of 10 classes keeps more than half of its accuracy of .155 when it only guesses."""

    def of(right: int) -> Damage:
        return Damage(np.ones(200), np.zeros(200), (np.arange(200) < right).astype(float), chance=0.1)

    weak, guessing, better = of(31), of(21), of(28)
    assert [destroyed(left, weak, 0.5) for left in (guessing, better, weak)] == [1, 0, 0]
    assert isnan(destroyed(guessing, of(20), 0.5))  # there is nothing to lose


def test_photographs_without_labels(finished: Path, tmp_path: Path) -> None:
    words = ("--quantization.images", "builtin", "--quantization.calibration", "12", "--quantization.bits", "[4]")
    evaluate(tmp_path / "out", finished, *words, "--quantization.floor", "1", tasks="quantization").succeeded()
    rows = table(tmp_path / "out")
    assert not rows["metric"].str.starts_with("acc1").any()
    assert value(rows, "w4a4_static", "destroyed") == 1  # every cosine is below 1
    assert value(rows, "w4a4_static", "kl") > 0


def test_images_are_identified_by_their_files(tmp_path: Path) -> None:
    digests = []
    for color in (10, 200):
        write_image(tmp_path / "a.png", (8 + color, 8), (color, 0, 0))
        digests.append(ImageSource(str(tmp_path), lambda encoded: torch.zeros(1)).digest())
    assert digests[0] != digests[1]
    assert digests[1] == ImageSource(str(tmp_path), lambda encoded: torch.zeros(1)).digest()


def test_a_model_without_classifier_is_judged_by_a_segmentation_probe(tmp_path: Path) -> None:
    data, out = write_folders(tmp_path / "data", train=4, val=3), tmp_path / "out"
    for number, (path, mask) in enumerate(
        zip(*(sorted(data.glob(f"{x}/*/*")) for x in ("images", "masks")), strict=True)
    ):
        write_image(path, color=(40 * number, 120, 255 - 30 * number))
        write_mask(mask, columns(0, 1, 2) if number % 2 else columns(2, 1, 0))
    probe = ("--segmentation.data", data, "--segmentation.num_classes", "3", "--segmentation.size", "32")
    model = ("--backbone.name", "vit_tiny_patch16_224", "--backbone.pretrained", "false", "--backbone.img_size", "32")
    words = (*probe, *model, "--floors", "false", "--quantization.bits", "[3]", "--quantization.layer_limit", "1")
    run("evaluate", *words, "--tasks", "segmentation,quantization", "--out", out, "--device", "cpu").succeeded()
    rows = table(out).filter(pl.col("task") == "quantization")
    miou = value(rows, "fp32", "miou")
    assert miou == pytest.approx(numbers(out)["segmentation/miou"], abs=0.01)  # its tokens are in half precision
    drop = value(rows, "w3a3_static", "miou_drop")
    assert drop == pytest.approx(miou - value(rows, "w3a3_static", "miou"))
    assert value(rows, "w3a3_static", "miou_drop_low") <= drop <= value(rows, "w3a3_static", "miou_drop_high")
    assert value(rows, "w3a3_static", "destroyed") == (value(rows, "w3a3_static", "miou") < 0.5 * miou)
    assert not rows["metric"].str.contains("^(acc1|kl)").any()


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--quantization.bits", "[9]"), ("quantization.bits must lie between 2 and 8",)),
        (("--quantization.percentile", "100"), ("quantization.percentile",)),
        (("--quantization.images", "builtin", "--quantization.calibration", "15"), ("none would be left to measure",)),
        (("--quantization.images", "no/such/folder"), ("images=no/such/folder",)),
        (("--quantization.rule", "causual"), ("rule=causual: no such rule",)),
    ],
)
def test_wrong_settings_are_refused(
    words: tuple[str, ...], phrases: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    assert_refused(evaluate(tmp_path / "out", finished, *words, tasks="quantization"), *phrases)
    assert not (tmp_path / "out" / "evaluation.parquet").exists()
