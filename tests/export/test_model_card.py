"""The model card: what it says, that its recipe is a config, and that nothing private is in an exported folder."""

import json
import re
from pathlib import Path

import pytest
import yaml
from running import run


def test_the_card_describes_the_model(exported: Path) -> None:
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "sinkablate"
    assert metadata["pipeline_tag"] == "image-classification"
    assert "base_model" not in metadata
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Use", "Data", "Recipe", "Results", "Attention sinks", "Citation"]
    assert "`registers: 4`, `attention.gate: headwise`" in text
    assert re.search(r"^\| validation accuracy \| [\d.]+% \|$", text, re.MULTILINE)
    assert re.search(r"^\| `causal` \|( \d+\.\d\d \|){4}$", text, re.MULTILINE)
    assert "10,000 Fashion-MNIST images" in text
    assert "mean openness of the gates" in text


def test_the_recipe_of_the_card_is_a_config(exported: Path, finished: Path, tmp_path: Path) -> None:
    """That trains the same variant with the same settings."""
    (recipe,) = re.findall(r"```yaml\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert yaml.safe_load(recipe)["trainer"]["limit_val_batches"] == 2  # the scores are of two batches
    (tmp_path / "recipe.yaml").write_text(recipe)
    printed = yaml.safe_load(run("fit", "--config", tmp_path / "recipe.yaml", "--print_config").succeeded().out)
    stored = yaml.safe_load((finished / "config.yaml").read_text())
    for group in ("backbone", "optim", "loss", "ema"):
        assert printed["model"][group] == stored["model"][group]
    assert printed["data"]["batch_size"] == stored["data"]["batch_size"]
    assert printed["trainer"]["max_epochs"] == stored["trainer"]["max_epochs"]


def test_nothing_private_is_exported(averaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of a person, directory, file or token: neither in the card nor in the configuration or the weights."""
    monkeypatch.setenv("HF_TOKEN", "hf_telltale")
    for form in ("hub", "timm"):
        run("export", "--run", averaged, "--out", tmp_path / form, "--format", form).succeeded()
        content = b"".join(path.read_bytes() for path in (tmp_path / form).iterdir())
        for private in (b"jane", b"doe", b"hf_telltale", bytes(averaged.parent), bytes(tmp_path), b"/home", b"/root"):
            assert private not in content, private
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "Trained on 40 images in one folder per class." in card
    assert "Classes, in the order of the logits: 0, 1, 2," in card
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["label_names"] == list("0123456789")
