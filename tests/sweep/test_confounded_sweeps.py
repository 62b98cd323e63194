"""A sweep whose cells differ in more than the named factors is refused."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from running import run

from sinkablate.config import BackboneConfig, CommonModeConfig, ToyConfig, flat
from sinkablate.sweep.confounding import DETAILS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


def sweep(folder: Path, configs: list[Path], **parameters: list) -> Path:
    """Write a sweep over configs and other parameters."""
    file = folder / "sweep.yaml"
    content = {
        "name": "design",
        "method": "grid",
        "command": ["${env}", "python", "-m", "sinkablate", "fit", "--sweep", "design", "${args}"],
        "parameters": {"config": {"values": [str(config) for config in configs]}, "seed_everything": {"values": [0, 1]}}
        | {key: {"values": values} for key, values in parameters.items()},
    }
    file.write_text(yaml.safe_dump(content))
    return file


def config(folder: Path, name: str, **keys: object) -> Path:
    """Write a config."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"variant": name, **keys}))
    return file


def planned(folder: Path, file: Path, *args: str):
    """Plan a sweep in an empty directory."""
    return run("sweep", "plan", file, "--out", folder / "out", *args)


def shipped(*names: str) -> list[Path]:
    """Return shipped configs by name."""
    return [CONFIGS / f"{name}.yaml" for name in names]


def test_registers_of_two_types_are_refused(tmp_path: Path) -> None:
    file = sweep(tmp_path, shipped("baseline", "gate", "reg_pos", "gate_reg"))
    outcome = planned(tmp_path, file)
    assert outcome.code == 2
    for words in ("reg_pos and gate_reg differ in", "register_pos_embed", "register_init_std", "attention.gate"):
        assert words in outcome.err
    assert outcome.err.count("\n") == 1
    planned(tmp_path, file, "--allow_confounded").succeeded()
    assert run("sweep", "run", file, "--out", tmp_path / "out").code == 2
    assert run("sweep", "submit", file, "--out", tmp_path / "out", "--dry_run").code == 2


@pytest.mark.parametrize(
    "names",
    [
        ("baseline", "gate", "reg_pos", "gate_reg_pos"),
        ("baseline", "gate", "reg", "reg_pos", "gate_reg"),
        ("baseline", "pathway", "pathway_penalty", "sigmoid_learned"),
        ("baseline", "gate_value", "gate", "gate_frozen"),
    ],
)
def test_a_design_with_named_differences_is_accepted(tmp_path: Path, names: tuple[str, ...]) -> None:
    planned(tmp_path, sweep(tmp_path, shipped(*names))).succeeded()


def pathway(folder: Path, name: str, gating: str, gate: str) -> Path:
    """Write a config with a pathway and a gate."""
    return config(
        folder, name, model={"backbone": {"pathway": {"kind": "global", "gating": gating}, "attention": {"gate": gate}}}
    )


def test_pathways_of_two_gatings_are_refused(tmp_path: Path) -> None:
    """Only one of the cells with a pathway has a gate."""
    configs = [pathway(tmp_path, "plain", "learned", "none"), pathway(tmp_path, "both", "hierarchical", "headwise")]
    connecting = pathway(tmp_path, "other", "hierarchical", "none")
    outcome = planned(tmp_path, sweep(tmp_path, [*shipped("baseline", "gate"), *configs]))
    assert outcome.code == 2
    assert "model.backbone.pathway.gating" in outcome.err.split("no two cells differ in")[1]
    planned(tmp_path, sweep(tmp_path, [*shipped("baseline", "gate"), *configs, connecting])).succeeded()


def test_every_detail_is_decided_by_a_key_of_its_config_class() -> None:
    assert DETAILS["model.toy.pathway.gating"] == ("model.toy.pathway.kind", None)
    assert DETAILS["model.backbone.attention.clip_zeta"] == ("model.backbone.attention.score", ("clipped_softmax",))
    configs = {"backbone": BackboneConfig(), "common_mode": CommonModeConfig(), "toy": ToyConfig()}
    known = flat({"model": {name: asdict(config) for name, config in configs.items()}})
    assert {name for key, (axis, _) in DETAILS.items() for name in (key, axis)} <= known.keys()


def test_a_setting_that_only_one_variant_changes_is_refused(tmp_path: Path) -> None:
    gate = {"backbone": {"attention": {"gate": "headwise"}}}
    fast = config(tmp_path, "fast", model=gate | {"optim": {"lr": 0.01}})
    outcome = planned(tmp_path, sweep(tmp_path, [*shipped("baseline"), fast]))
    assert outcome.code == 2
    assert "baseline and fast differ in" in outcome.err
    assert "no two cells differ in model.optim.lr alone" in outcome.err
    planned(tmp_path, sweep(tmp_path, [*shipped("baseline", "gate"), fast])).succeeded()
    planned(tmp_path, sweep(tmp_path, shipped("baseline", "gate"), **{"model.optim.lr": [0.001, 0.01]})).succeeded()


@pytest.mark.parametrize(
    "file", [file for folder in ("sweeps", "sweeps/paper") for file in sorted((ROOT / folder).glob("*.yaml"))], ids=str
)
def test_shipped_sweeps_are_not_confounded_unless_they_say_so(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGENET_TRAIN", str(tmp_path / "train-{0000..0001}.tar"))
    monkeypatch.setenv("IMAGENET_VAL", str(tmp_path / "val-{0000..0001}.tar"))
    monkeypatch.chdir(ROOT)
    planned(tmp_path, file, *(["--allow_confounded"] if "--allow_confounded" in file.read_text() else [])).succeeded()
