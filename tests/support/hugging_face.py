"""Small untrained vision models of transformers, and a function that copies timm's weights into them."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from variants import perturbed

from sinkablate.vit.anatomy import block_parts, blocks_of
from sinkablate.vit.tokens import TokenLayout

SIZE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
MODELS: dict[str, tuple[dict[str, Any], TokenLayout]] = {
    "ViT": ({}, TokenLayout(1, 0, 16)),
    "DeiT": ({}, TokenLayout(2, 0, 16)),
    "Dinov2": ({"mlp_ratio": 2}, TokenLayout(1, 0, 16)),
    "Dinov2WithRegisters": ({"mlp_ratio": 2, "num_register_tokens": 3}, TokenLayout(1, 3, 16)),
    "CLIPVision": ({}, TokenLayout(1, 0, 16)),
    "SiglipVision": ({}, TokenLayout(0, 0, 16)),
    "DINOv3ViT": ({"num_register_tokens": 4}, TokenLayout(1, 4, 16)),
}
"""Name in transformers -> fields of the configuration, and the token layout."""


def untrained(name: str, attention: str = "sdpa", lively: bool = True, **fields: Any) -> Any:
    """Build a model of two blocks in eval mode with random biases, norms and LayerScale."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZE, **MODELS.get(name, ({},))[0], **fields})
    model = getattr(transformers, f"{name}Model")._from_config(config, attn_implementation=attention)
    return (perturbed(model) if lively else model).float().eval()


def query_key_weights(model: nn.Module) -> list[tuple[Tensor, Tensor, Tensor]]:
    """W_Q, W_K and the gain of the preceding norm of every block."""
    parts: list[Any] = [block_parts(model, index) for index in range(len(blocks_of(model)))]
    return [(part.attn.q_proj.weight, part.attn.k_proj.weight, part.norm1.weight) for part in parts]


@torch.no_grad()
def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of a timm model into one of transformers, including every parameter that the blocks use."""
    patches = getattr(target.embeddings, "patch_embeddings", None)
    projection = target.embeddings.patch_embedding if patches is None else patches.projection
    projection.load_state_dict(source.patch_embed.proj.state_dict(), strict=projection.bias is not None)
    _copy_prefix(source, target.embeddings)
    if hasattr(target, "pre_layrnorm"):
        target.pre_layrnorm.load_state_dict(source.norm_pre.state_dict())
    for index, block in enumerate(source.blocks):
        parts: Any = block_parts(target, index)
        for name, weight, bias in zip(
            ("q_proj", "k_proj", "v_proj"), block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True
        ):
            getattr(parts.attn, name).load_state_dict({"weight": weight, "bias": bias})
        for module, timm_module in (
            (parts.proj, block.attn.proj),
            (parts.norm1, block.norm1),
            (parts.norm2, block.norm2),
            (parts.block.mlp.fc1, block.mlp.fc1),
            (parts.block.mlp.fc2, block.mlp.fc2),
        ):
            module.load_state_dict(timm_module.state_dict())
        for number in (1, 2):
            if hasattr(parts.block, f"layer_scale{number}"):
                getattr(parts.block, f"layer_scale{number}").lambda1.copy_(getattr(block, f"ls{number}").gamma)


def _copy_prefix(source: Any, embeddings: Any) -> None:
    """Copy the class token, registers and position embeddings."""
    if source.cls_token is not None and hasattr(embeddings, "class_embedding"):
        embeddings.class_embedding.copy_(source.cls_token.flatten())
    elif source.cls_token is not None:
        embeddings.cls_token.copy_(source.cls_token)
    if source.reg_token is not None:
        embeddings.register_tokens.copy_(source.reg_token)
    positions = source.pos_embed
    if source.no_embed_class and source.cls_token is not None:  # timm includes the position in the class token
        positions = torch.cat([torch.zeros_like(source.cls_token), positions], dim=1)
    if hasattr(embeddings, "position_embeddings"):
        embeddings.position_embeddings.copy_(positions)
    else:
        embeddings.position_embedding.weight.copy_(positions[0])
