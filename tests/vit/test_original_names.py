"""Weights with the names and shapes in which their authors published them, converted by timm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from variants import perturbed

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone

State = dict[str, Tensor]
SIZE = 56


def clip(state: State) -> State:
    """OpenAI's names, which OpenCLIP uses as well, with parts of the text encoder."""
    swaps = {
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "blocks.": "transformer.resblocks.",
        ".norm1": ".ln_1",
        ".norm2": ".ln_2",
        "qkv.": "in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    content: State = {"logit_scale": torch.ones(()), "token_embedding.weight": torch.ones(3, 4)}
    for name, value in state.items():
        original = name
        for timms, openais in swaps.items():
            original = original.replace(timms, openais)
        match name:
            case "cls_token":
                content["visual.class_embedding"] = value[0, 0]
            case "pos_embed":
                content["visual.positional_embedding"] = value[0]
            case "head.weight":
                content["visual.proj"] = value.T.contiguous()
            case "head.bias":
                value.zero_()
            case "norm.weight" | "norm.bias":
                content[f"visual.ln_post.{name.partition('.')[2]}"] = value
            case _:
                content[f"visual.{original}"] = value
    return content


def open_clip(state: State) -> State:
    """OpenCLIP's names for a vision tower of timm."""
    return {"logit_scale": torch.ones(())} | {f"visual.trunk.{name}": value for name, value in state.items()}


def dinov2(state: State) -> State:
    """The file of DINOv2 with registers: one position embedding for CLS and patches, and a mask token."""
    content = {name: value for name, value in state.items() if name != "reg_token"}
    position = torch.full_like(content["cls_token"], 0.5)
    content["cls_token"] = content["cls_token"] - position
    content["pos_embed"] = torch.cat((position, content["pos_embed"]), dim=1)
    return content | {"register_tokens": state["reg_token"], "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


def mae(state: State) -> dict[str, State]:
    """The file of pretraining with a decoder."""
    decoder = {
        "mask_token": torch.ones(1, 1, 8),
        "decoder_embed.weight": torch.ones(8, 8),
        "decoder_pos_embed": torch.ones(1),
    }
    return {"model": state | decoder}


def deit3(state: State) -> dict[str, State]:
    """DeiT III names its LayerScale differently."""
    return {
        "model": {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for name, v in state.items()}
    }


def eva(state: State) -> dict[str, State]:
    """EVA-02 after masked image modeling: a mask token, a head for pretraining, and rotary embeddings."""
    extra = {"mask_token": torch.ones(1), "lm_head.weight": torch.ones(2, 2), "lm_head.bias": torch.ones(2)}
    norm = {f"norm.{leaf}": state[f"fc_norm.{leaf}"] for leaf in ("weight", "bias")}
    kept = {name: value for name, value in state.items() if not name.startswith(("fc_norm", "head"))}
    return {"module": kept | norm | extra | {"blocks.0.attn.rope.freqs_cos": torch.ones(4, 4)}}


FAMILIES: dict[str, tuple[str, Callable[[State], Any], dict[str, Any]]] = {
    "CLIP": ("vit_base_patch32_clip_224.openai", clip, {"img_size": 64, "num_classes": 512}),
    "OpenCLIP": ("vit_base_patch16_siglip_224.webli", open_clip, {"img_size": 32}),
    "DINOv2": ("vit_small_patch14_reg4_dinov2.lvd142m", dinov2, {"img_size": SIZE}),
    "MAE": ("vit_base_patch16_224.mae", mae, {"img_size": 32}),
    "DeiT": ("deit_tiny_patch16_224", lambda state: {"model": state}, {"img_size": 32}),
    "DeiT III": ("deit3_small_patch16_224", deit3, {"img_size": 32}),
    "EVA": ("eva02_tiny_patch14_224.mim_in22k", eva, {"img_size": SIZE}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_original_names_load_through_timm(tmp_path: Path, family: str) -> None:
    name, original, arguments = FAMILIES[family]
    torch.manual_seed(0)
    expected = perturbed(timm.create_model(name, depth=1, **arguments)).eval()
    content = original({key: value.clone() for key, value in expected.state_dict().items()})
    if family == "CLIP":
        expected.head.bias.data.zero_()
    torch.save(content, path := tmp_path / "x.pth")
    config = BackboneConfig(name=name, depth=1, checkpoint=str(path))
    model: Any = build_backbone(config, num_classes=None, in_chans=3, img_size=arguments["img_size"]).eval()
    assert model.num_classes == expected.num_classes
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-6, rtol=0, msg=key)
        assert model.state_dict()[key].is_contiguous()
    assert model.weights_origin.prefix == ""


def test_the_decoder_of_pretraining_is_left_out_and_reported(tmp_path: Path) -> None:
    state = timm.create_model("vit_base_patch16_224.mae", depth=1, img_size=32).state_dict()
    torch.save(mae(state), path := tmp_path / "x.pth")
    config = BackboneConfig(name="vit_base_patch16_224.mae", depth=1, checkpoint=str(path))
    model: Any = build_backbone(config, num_classes=None, in_chans=3, img_size=32)
    assert model.weights_origin.sentences == [
        "not part of the model: 2 tensors (decoder_embed.weight, decoder_pos_embed)"
    ]
