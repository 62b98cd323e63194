"""Measurement mode restores random states, numerical settings and the training modes of modules."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sinkablate.diagnostics.probe import measurement_mode


def global_state() -> tuple[Any, ...]:
    """Random states and numerical settings, as values that can be compared."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    state = numpy["state"]
    return (
        random.getstate(),
        state["key"].tolist(),
        state["pos"],
        numpy["has_gauss"],
        torch.get_rng_state().tolist(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("breaks", [False, True], ids=["as planned", "by an exception"])
@pytest.mark.parametrize("precision", ["high", "highest"])
def test_measurement_mode_restores_everything(breaks: bool, precision: str) -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Sequential(norm, nn.Dropout(0.5))).train()
    norm.eval()
    modes = [module.training for module in model.modules()]
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = True
    try:
        before = global_state()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                with measurement_mode(model):
                    inside = (
                        torch.get_float32_matmul_precision(),
                        torch.backends.cudnn.allow_tf32,
                        torch.is_grad_enabled(),
                        torch.is_autocast_enabled("cpu"),
                    )
                    evaluates = not any(module.training for module in model.modules())
                    draw = random.random(), np.random.standard_normal(), torch.rand(1), model(torch.ones(4, 2))
                    assert draw[-1].dtype == torch.float32
                    if breaks:
                        raise KeyError("inside")
            except KeyError:
                assert breaks
            assert torch.is_autocast_enabled("cpu")
        after = global_state()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert inside == ("highest", False, False, False)
    assert evaluates
    assert after == before
    assert [module.training for module in model.modules()] == modes
