"""Names of models: folders and repositories of timm, the cache of the hub, and what happens without a network."""

import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from running import assert_refused, run
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn
from variants import noise, perturbed

import sinkablate as sa
from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.model_names import named_model
from sinkablate.vit.weights_origin import unused_weights_notes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder that timm wrote, and its model."""
    folder = tmp_path_factory.mktemp("timm") / "tiny"
    torch.manual_seed(0)
    model = perturbed(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=3)).eval()
    save_for_hf(model, str(folder))
    return folder, model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub; nothing is read from the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def in_cache(cache: Path, repository: str, folder: Path) -> None:
    """Copy a folder into the cache in the layout of huggingface_hub."""
    root = cache / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    shutil.copytree(folder, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)


def assert_same_function(name: str, model: nn.Module) -> None:
    images = noise(2, 3, 32, 32)
    assert torch.equal(sa.create_model(name).eval()(images), model(images))


def test_a_folder_of_timm_loads(saved: tuple[Path, nn.Module]) -> None:
    folder, model = saved
    assert_same_function(f"local-dir:{folder}", model)


def test_a_folder_of_timm_for_rectangles_has_their_height_and_width(tmp_path: Path) -> None:
    small = {"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 8, "num_classes": 3, "img_size": (16, 32)}
    model = timm.create_model("vit_tiny_patch16_224", **small).eval()
    model.pretrained_cfg |= {"input_size": (3, 16, 32), "num_classes": 3}
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    images = torch.randn(2, 3, 16, 32)
    assert torch.equal(sa.create_model(f"local-dir:{tmp_path}").eval()(images), model(images))


def test_a_repository_in_the_cache_loads_offline(saved: tuple[Path, nn.Module], cache: Path) -> None:
    in_cache(cache, "someone/cached-tiny", saved[0])
    assert_same_function("hf-hub:someone/cached-tiny", saved[1])


def test_a_mechanism_is_added_to_a_model_from_a_folder(saved: tuple[Path, nn.Module]) -> None:
    model: Any = sa.create_model(f"local-dir:{saved[0]}", registers=2, gate="headwise", num_classes=5)
    assert torch.equal(model.blocks[0].attn.qkv.weight, saved[1].get_parameter("blocks.0.attn.qkv.weight"))
    assert model.num_reg_tokens == 2


def test_a_file_is_loaded_into_the_architecture_of_a_folder(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, model = saved
    other = {name: value + 1 for name, value in model.state_dict().items()}
    save_file(other, path := tmp_path / "other.safetensors")
    loaded = sa.create_model(f"local-dir:{folder}", checkpoint=str(path))
    assert all(torch.equal(value, other[name]) for name, value in loaded.state_dict().items())


def test_half_precision_of_a_folder_is_reported(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    shutil.copytree(saved[0], tmp_path / "half", ignore=shutil.ignore_patterns("*.bin"))
    state = {name: value.half() for name, value in saved[1].state_dict().items()}
    save_file(state, tmp_path / "half" / "model.safetensors")
    model = sa.create_model(f"local-dir:{tmp_path / 'half'}")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.weights_origin.sentences == ["the weights are stored in float16 and used in float32"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf-hub:nobody/absent-model", "no network and not in the cache of the Hugging Face hub"),
        ("vit_small_patch14_dinov2.lvd142m", "no network and not in the cache of the Hugging Face hub"),
        ("hf-hub:not a name", "not the name of a repository, which has the form USER/NAME"),
        ("nobody/absent-model", "use hf-hub:nobody/absent-model for a repository"),
        ("hf-hub:", " names nothing; write hf-hub:USER/NAME or local-dir:FOLDER"),
        ("local-dir:", " names nothing; write hf-hub:USER/NAME or local-dir:FOLDER"),
        ("local-dir:/nowhere", "there is no /nowhere/config.json"),
        ("vit_small_patch14_dinov2.lvd14", "has no weights tagged lvd14; its tags: lvd142m"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(cache: Path, name: str, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        build_backbone(BackboneConfig(name=name, pretrained=True), num_classes=None, in_chans=3, img_size=224)
    assert str(refusal.value).startswith(f"name={name}")
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_bare_name_of_a_folder_gets_its_prefix_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").mkdir()
    with pytest.raises(UserError, match="use local-dir:exported"):
        named_model("exported")


def test_training_from_random_weights_under_the_name_of_a_folder_is_said(saved: tuple[Path, nn.Module]) -> None:
    name = f"local-dir:{saved[0]}"
    (note,) = unused_weights_notes({"name": name, "pretrained": False, "checkpoint": None})
    assert (
        note
        == f"training starts from random weights; to start from those of {name}, set model.backbone.pretrained=true"
    )
    assert unused_weights_notes({"name": name, "pretrained": True}) == []
    assert unused_weights_notes({"name": name, "checkpoint": "x.pth"}) == []
    assert unused_weights_notes({"name": "vit_mini"}) == []


def test_a_hub_that_cannot_be_reached_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))  # tries five times
    with pytest.raises(UserError, match="no network and not in the cache"):
        named_model("hf-hub:nobody/unreachable-model")


class Refusing(BaseHTTPRequestHandler):
    """A hub that answers every request as the real one does for a repository that may not be read."""

    error = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Refuse the request."""
        self.do_HEAD()

    def do_HEAD(self) -> None:
        """Refuse the request."""
        self.send_response(401)
        self.send_header("X-Error-Code", self.error)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.mark.parametrize(("error", "says"), [("GatedRepo", "access is restricted"), ("RepoNotFound", "it is private")])
@pytest.mark.parametrize("option", ["--backbone.name=hf-hub:someone/", "--hf=someone/"])
def test_a_repository_that_needs_a_login_is_refused_in_one_line(
    error: str, says: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (Refusing,), {"error": error}))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        outcome = run("diagnose", f"{option}{error}", "--images", "builtin", "--out", tmp_path / "out")
    finally:
        server.shutdown()
        server.server_close()
    assert_refused(outcome, says, "log in (hf auth login)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"architecture": "resnet_unheard_of"})])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"name=local-dir:{tmp_path}: "):
        sa.create_model(f"local-dir:{tmp_path}")
