"""Variants with the same seed share every tensor they have in common, and no global random state changes."""

import random
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from variants import VARIANTS, make

from sinkablate.config import AttentionConfig
from sinkablate.vit.tokens import token_layout


def comparable(model: VisionTransformer) -> dict[str, Tensor]:
    """Parameters by name, with `cls`, the class token as it enters the blocks, in place of its token and position.

    Models whose registers have no positions store that sum as one parameter, others as two.
    """
    tensors = dict(model.named_parameters())
    positions, cls = tensors.pop("pos_embed")[0], tensors.pop("cls_token")[0]
    patches = model.patch_embed.num_patches
    tensors["patch positions"] = positions[-patches:]
    tensors["cls"] = cls if model.no_embed_class else cls + positions[:1]
    return tensors


@pytest.fixture(scope="module")
def variants() -> dict[str, VisionTransformer]:
    return {name: make(fields, seed=3) for name, fields in VARIANTS.items()}


@pytest.mark.parametrize("pair", list(combinations(VARIANTS, 2)), ids="-".join)
def test_every_pair_of_variants_shares_its_common_tensors(pair: tuple[str, str], variants: dict[str, Any]) -> None:
    one, other = (comparable(variants[name]) for name in pair)
    common = [name for name in one if name in other and one[name].shape == other[name].shape]
    assert len(common) >= (18 if "matched" in pair else 26)
    assert {"cls", "patch positions", "patch_embed.proj.weight", "head.weight"} <= set(common)
    for name in common:
        different_by_design = name == "reg_token" and "reg_pos" in pair  # their standard deviations differ
        assert torch.equal(one[name], other[name]) != different_by_design, name


def test_another_seed_draws_everything_anew() -> None:
    one, other = (dict(make(VARIANTS["gate_reg"], seed=seed).named_parameters()) for seed in (3, 4))
    constant = {name for name, p in one.items() if name.endswith("bias") or "norm" in name} - {"patch_embed.proj.bias"}
    for name, p in one.items():
        assert torch.equal(p, other[name]) == (name in constant), name


def test_no_two_parameters_of_a_model_are_equal() -> None:
    flat = [p.flatten()[:40] for p in make(VARIANTS["gate_reg"]).parameters() if p.std() > 0]
    gram = nn.functional.normalize(torch.stack(flat) - torch.stack(flat).mean(1, keepdim=True)).double()
    correlation = (gram @ gram.T).fill_diagonal_(0).abs().max()
    assert correlation < 0.7


@pytest.mark.parametrize("name", ["reg", "reg_pos", "gate_reg"])
def test_the_sequence_that_enters_the_blocks_is_the_same_on_common_tokens(name: str, variants: dict[str, Any]) -> None:
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    sequences = []
    for model in (variants["baseline"], variants[name]):
        tokens = model._pos_embed(model.patch_embed(images))
        prefix = token_layout(model, tokens.shape[1], (28, 28)).num_prefix
        sequences.append(torch.cat((tokens[:, :1], tokens[:, prefix:]), dim=1))
    assert torch.equal(*sequences)


@pytest.mark.parametrize(
    "fields",
    [*VARIANTS.values(), {"attention": AttentionConfig(score="sigmoid", gate="elementwise")}, {"fixed_sincos": True}],
)
def test_building_a_model_keeps_the_global_random_state(fields: dict[str, Any]) -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    make(fields)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_the_global_random_state_changes_nothing() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(make(VARIANTS["gate_reg"]).state_dict())
    assert all(torch.equal(states[0][name], p) for name, p in states[1].items())


def test_fixed_positions_leave_the_class_token_alone() -> None:
    tokens = [make(fixed_sincos=True, registers=n).cls_token for n in (0, 4)]
    assert torch.equal(*tokens)
