"""The public Python API: its names, and that its numbers are those of the commands."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from polars.testing import assert_frame_equal
from running import run, tree
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sinkablate as sa
from sinkablate.compare.formats import render
from sinkablate.diagnose.images import BUILTIN

CONTRACT = {
    "Label",
    "SinkDiagnostics",
    "ThresholdConfig",
    "UserError",
    "attention_maps",
    "compare",
    "create_model",
    "intervene",
    "load_run",
    "measure",
}


def test_the_names_are_the_contract() -> None:
    assert set(sa.__all__) == CONTRACT
    assert set(dir(sa)) >= CONTRACT
    assert all(getattr(sa, name).__name__ == name for name in CONTRACT)
    with pytest.raises(AttributeError, match="no_such_name"):
        sa.no_such_name  # noqa: B018
    assert issubclass(sa.UserError, ValueError)


def test_importing_the_package_imports_nothing_heavy_and_keeps_the_functions() -> None:
    code = (
        "import sys; before = set(sys.modules); import sinkablate as sa;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names));"
        "import sinkablate.compare.statistics; print(sa.compare.__module__);"
        "from sinkablate import compare; print(compare is sa.compare)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.splitlines() == ["sinkablate", "sinkablate.api.compare", "True"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return sa.create_model("vit_tiny_patch16_224", img_size=64, depth=3, gate="headwise", registers=2, num_classes=5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_every_mechanism_is_a_keyword() -> None:
    small = {"embed_dim": 32, "num_heads": 2, "depth": 2}
    model: Any = sa.create_model(
        score="sigmoid", sigmoid_bias="learned", gate="elementwise", gate_position="value", registers=3, **small
    )
    config = model.blocks[1].attn.config
    assert (config.score, config.sigmoid_bias, config.gate, config.gate_position) == (
        "sigmoid",
        "learned",
        "elementwise",
        "value",
    )
    assert model.num_reg_tokens == 3
    changed: Any = sa.create_model(pathway="global", pathway_width=7, **small)
    assert changed.blocks[0].pathway.config.width == 7
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_model_is_the_one_that_fit_trains(finished: Path) -> None:
    trained = sa.load_run(finished)
    new = sa.create_model("vit_mini", gate="headwise", registers=4, seed=trained.config["seed_everything"])
    assert {name: tensor.shape for name, tensor in new.state_dict().items()} == {
        name: tensor.shape for name, tensor in trained.model.state_dict().items()
    }
    assert trained.config["variant"] == "gate_reg"
    assert trained.images.shape == (trained.config["diagnostics"]["images"], 1, 28, 28)
    assert trained.transform is not None


def test_pictures_are_prepared_as_the_run_prepared_them(finished: Path) -> None:
    from skimage import __file__ as skimage

    trained = sa.load_run(finished)
    path = Path(skimage).parent / "data" / "camera.png"
    assert trained.transform is not None
    tensor = trained.transform(Image.open(path).convert("L"))[None]
    assert_frame_equal(sa.measure(trained.model, [path]).heads, sa.measure(trained.model, tensor).heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gat": "headwise"}, "gat=headwise: create_model has no such option; did you mean gate?"),
        ({"name": "vit_smal_patch16_224"}, "did you mean vit_small_patch16_224"),
        ({"score": "relu", "sink": "zero"}, "sink=zero needs"),
    ],
)
def test_what_cannot_be_created_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        sa.create_model(**options)
    assert "\n" not in str(caught.value)


SMALL = ("--backbone.name", "vit_tiny_patch16_224", "--backbone.img_size", "64", "--backbone.pretrained", "false")


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """The model of `SMALL`."""
    return sa.create_model("vit_tiny_patch16_224", img_size=64)


def test_measure_returns_what_diagnose_writes(
    small: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("diagnose", *SMALL, "--images", "builtin", "--out", tmp_path / "out").succeeded()
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    capsys.readouterr()
    m = sa.measure(small, "builtin")
    for name in ("heads", "blocks", "sensitivity"):
        assert_frame_equal(getattr(m, name), pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), check_exact=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert json.loads(json.dumps(m.summary)) == {name: summary[name] for name in m.summary}
    assert {"counts", "first_block", "handoff", "rules", "image_count"} <= m.summary.keys()
    stored = np.load(tmp_path / "out" / "per_image.npz")
    np.testing.assert_array_equal(m.per_image["mass"], stored["mass"])
    counts = (m.labels("adaptive") == sa.Label.NOP).sum(axis=0).reshape(-1)
    assert counts.tolist() == m.heads["adaptive_nop"].to_list()
    assert capsys.readouterr() == ("", "")
    assert tree(tmp_path) == before


def test_images_may_come_in_any_form(small: nn.Module) -> None:
    from skimage import __file__ as skimage

    paths = [Path(skimage).parent / "data" / name for name in BUILTIN[:3]]
    loaded = [Image.open(path) for path in paths]
    expected = sa.measure(small, paths).heads
    assert_frame_equal(sa.measure(small, loaded).heads, expected)
    tensors = torch.stack([sa_transform(small)(image.convert("RGB")) for image in loaded])
    labels = torch.zeros(len(tensors))
    for images in (
        tensors,
        list(tensors),
        DataLoader(TensorDataset(tensors, labels), batch_size=3),
        DataLoader([{"pixel_values": tensor} for tensor in tensors], batch_size=3),  # type: ignore[arg-type]
    ):
        assert_frame_equal(sa.measure(small, images).heads, expected)


def sa_transform(model: nn.Module) -> Any:
    """The evaluation transform of timm for a model of 64 pixels."""
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({"input_size": (3, 64, 64)}, pretrained_cfg=model.pretrained_cfg))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), r"expected a batch \(n, C, H, W\)"),
        ([], "images: no image to measure"),
        (["nowhere.png"], "nowhere.png cannot be read"),
        ([3], "item 0 is a int"),
        (DataLoader([{"x": torch.zeros(3)}]), "pixel_values"),  # type: ignore[arg-type]
    ],
)
def test_images_that_cannot_be_used_are_refused(images: Any, message: str, model: nn.Module) -> None:
    with pytest.raises(sa.UserError, match=message):
        sa.measure(model, images)


def test_measure_leaves_the_model_and_its_wrappers_as_they_were(model: nn.Module, images: Tensor) -> None:
    model.train()
    wrapped: Any = nn.DataParallel(model) if torch.cuda.is_available() else torch.compile(model, backend="eager")
    state = torch.get_rng_state()
    m = sa.measure(wrapped, images, blocks=[-1])
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert m.heads["block"].unique().to_list() == [2]
    with pytest.raises(sa.UserError, match="choose one of causal"):
        m.labels("none")
    with pytest.raises(sa.UserError, match="outside the model's 3 blocks"):
        sa.measure(model, images, blocks=[3])


def test_attention_maps_are_the_softmax_of_the_models_own_logits(images: Tensor) -> None:
    model: Any = sa.create_model("vit_tiny_patch16_224", img_size=64, depth=2).double()
    maps = sa.attention_maps(model, images, heads=[(1, 2), (0, 1)], batch_size=4)
    with torch.no_grad():
        stream = model.blocks[0](model._pos_embed(model.patch_embed(images.double())))
        block = model.blocks[1]
        q, k, _ = block.attn.qkv(block.norm1(stream)).unflatten(-1, (3, 3, 64)).permute(2, 0, 3, 1, 4)
        expected = (q[:, 2] @ k[:, 2].mT / 8).softmax(-1)
    assert maps[1, 2].dtype == torch.float64
    torch.testing.assert_close(maps[1, 2], expected, rtol=0, atol=1e-12)
    assert maps[0, 1].shape == (6, 17, 17)
    with pytest.raises(sa.UserError, match="heads: 2:0 is outside"):
        sa.attention_maps(model, images, heads=[(2, 0)])


def test_intervene_returns_the_rows_of_the_command(finished: Path, tmp_path: Path) -> None:
    edits = ["mean_value", "donor_value", "redirect"]
    words = ("--heads", "1:0,3:2", "--edits", ",".join(edits), "--limit", "8", "--control_images", "2")
    run("intervene", "--run", finished, "--out", tmp_path / "out", *words).succeeded()
    trained = sa.load_run(finished)
    assert trained.loaded.probe_set is not None
    images, names, targets = trained.loaded.probe_set(8)
    effects = sa.intervene(trained.model, images, [(1, 0), (3, 2)], edits, names=names, targets=targets)
    for name, table in {"rows": effects.rows, "heads": effects.heads, "validation": effects.validation}.items():
        assert_frame_equal(table, pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), check_exact=True)
    assert effects.rows.height == 8 * 2 * len(edits)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"heads": [(9, 0)]}, "outside the model's 3 blocks"),
        ({"edits": ["no_edit"]}, "no_edit"),
        ({"rule": "none"}, "rule=none"),
        ({"heads": [(0, 0)], "names": ["one"]}, "names: 1 given for 6 images"),
    ],
)
def test_interventions_that_cannot_be_made_are_refused(
    words: dict[str, Any], message: str, model: nn.Module, images: Tensor
) -> None:
    with pytest.raises(sa.UserError, match=message):
        sa.intervene(model, images, **words)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_compare_returns_what_the_command_prints(library: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    cells = [(gate, registers, seed) for gate in ("none", "headwise") for registers in (0, 4) for seed in range(4)]
    columns = dict(zip(("gate", "registers", "seed"), map(list, zip(*cells, strict=True)), strict=True))
    frame = pl.DataFrame(columns | {"val/acc1": generator.normal(size=len(cells)).tolist()})
    frame.write_csv(tmp_path / "runs.csv")
    done = run("compare", tmp_path / "runs.csv", "--metric=val/acc1", "--factors=gate,registers", "--format=json")
    given = frame if library == "polars" else pd.DataFrame(frame.to_dict(as_series=False))
    table = sa.compare(given, metric="val/acc1", factors=["gate", "registers"])
    assert json.loads(render([table], "json")) == json.loads(done.succeeded().out)
    assert table.sentences
    with pytest.raises(sa.UserError, match="no such column"):
        sa.compare(given, metric="val/acc", factors=["gate"])
    with pytest.raises(sa.UserError, match="list of column names"):
        sa.compare(given, metric="val/acc1", factors="gate")
    with pytest.raises(sa.UserError, match="polars or pandas"):
        sa.compare([1], metric="val/acc1", factors=["gate"])
