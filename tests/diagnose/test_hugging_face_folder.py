"""Models of transformers by their name on the hub, from the cache and without a network, and folders without them."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import huggingface_hub.constants
from hugging_face import untrained
from safetensors.torch import load_file, save_file

from sinkablate.diagnose.hugging_face import load_hugging_face
from sinkablate.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub; nothing is read from the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_repository_in_the_cache_loads_under_its_name(cache: Path) -> None:
    root, model = cache / "models--someone--tiny-vit", untrained("ViT")
    model.half().save_pretrained(root / "snapshots" / ("0" * 40))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    loaded = load_hugging_face("someone/tiny-vit")
    assert loaded.description["model"] == "ViTModel someone/tiny-vit"
    assert loaded.description["weights"] == "someone/tiny-vit"
    assert loaded.description["loading"]["dtypes"] == ["float16"]
    state = model.state_dict()
    assert all(torch.equal(value, state[name].float()) for name, value in loaded.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody/absent-vit", "no such file or folder, and as a name on the hub: no network and not in the cache"),
        ("not a name", "no such file or folder; name a local folder, a config.json, or USER/NAME on the hub"),
        ("", "is empty"),
    ],
)
def test_an_absent_model_is_refused_in_one_line(cache: Path, name: str, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_hugging_face(name)
    assert str(refusal.value).startswith(f"hf={name}")
    assert says in str(refusal.value)


@pytest.mark.parametrize("architecture", ["test_vit", "sinkablate"])
def test_a_folder_of_timm_or_of_export_is_refused_with_the_option_that_reads_it(
    tmp_path: Path, architecture: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 3}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=f"use --backbone.name local-dir:{tmp_path}"):
        load_hugging_face(str(tmp_path))


def test_weights_that_do_not_cover_the_model_are_refused(tmp_path: Path) -> None:
    """transformers would draw the missing ones at random."""
    untrained("ViT").save_pretrained(tmp_path)
    load_hugging_face(str(tmp_path))
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"pooler.dense.bias": torch.zeros(48)}, file, metadata={"format": "pt"})
    load_hugging_face(str(tmp_path))
    kept = {name: value for name, value in weights.items() if ".1." not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"hf={tmp_path}: lacks \d+ of the weights of ViTModel: .*; download it again"):
        load_hugging_face(str(tmp_path))
