"""When `attention.kernel` uses FlexAttention, where it is refused, and that it is no part of a run's identity."""

from pathlib import Path
from typing import Any

import pytest
import torch
from running import assert_refused, fit
from torch._subclasses.fake_tensor import FakeTensorMode

from sinkablate.attention import denominator, flex
from sinkablate.attention.core import AttentionCore
from sinkablate.config import AttentionConfig, BackboneConfig, ConfigError, ToyConfig
from sinkablate.errors import UserError
from sinkablate.run.cells import cell_id
from sinkablate.toys.training import ToyTraining
from sinkablate.vit.backbone import build_backbone

H = 2
NO_FORM: list[tuple[dict[str, Any], str]] = [
    ({}, "score=softmax with sink=none"),
    ({"sink": "kv_bias"}, "score=softmax with sink=kv_bias"),
    ({"score": "clipped_softmax"}, "score=clipped_softmax with sink=none"),
    ({"score": "pointwise", "pointwise_function": "gelu"}, "pointwise_function=gelu"),
    ({"score": "pointwise", "pointwise_function": "identity"}, "pointwise_function=identity"),
    ({"score": "polynomial", "polynomial_power": 1}, "polynomial_power=1"),
]


@pytest.mark.parametrize(
    ("fields", "compiling", "tokens", "expected"),
    [
        ({"score": "relu"}, True, flex.MIN_TOKENS, True),
        ({"score": "relu"}, True, flex.MIN_TOKENS - 1, False),
        ({"score": "relu"}, False, flex.MIN_TOKENS, False),
        ({"score": "relu", "kernel": "flex"}, False, 2, True),
        ({"score": "relu", "kernel": "explicit"}, True, 2000, False),
        ({"score": "clipped_softmax"}, True, 2000, False),
        ({"sink": "zero"}, True, 2000, False),
        ({"sink": "zero", "kernel": "flex"}, False, 2, True),
    ],
    ids=str,
)
def test_when_a_gpu_uses_it(
    fields: dict[str, Any], compiling: bool, tokens: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tensors that have a device but no data, which need no GPU; auto leaves sinks to their own kernel."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    core, chosen = AttentionCore(AttentionConfig(**fields), H, 64), []
    monkeypatch.setattr(core, "forward_flex", lambda *inputs: chosen.append("flex"))
    monkeypatch.setattr(denominator, "_has_flash_kernels", lambda _: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        core(*(torch.empty(1, H, tokens, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)))
    assert chosen == ["flex"] * expected


def test_float64_is_computed_explicitly(monkeypatch: pytest.MonkeyPatch) -> None:
    core = AttentionCore(AttentionConfig(score="relu", kernel="flex"), H, 64)
    monkeypatch.setattr(core, "forward_flex", lambda *_: None)
    with FakeTensorMode():
        results = [
            core(*(torch.empty(1, H, 9, 64, device="cuda", dtype=dtype) for _ in range(3)))
            for dtype in (torch.float32, torch.float64)
        ]
    assert results[0] is None
    assert results[1].dtype == torch.float64


@pytest.mark.parametrize(("fields", "part"), NO_FORM, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_mechanisms_without_a_form_are_refused_and_left_to_auto(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=rf"^attention\.kernel=flex: .* does not compute {part}; use auto$"):
        AttentionCore(AttentionConfig(kernel="flex", **fields), H, 64)
    assert not AttentionCore(AttentionConfig(**fields), H, 64).has_flex_form


def test_a_model_without_any_mechanism_is_refused() -> None:
    """Such a model keeps timm's attention, which would ignore the key."""
    with pytest.raises(ConfigError, match=r"^attention\.kernel=flex: .* does not compute score=softmax with sink=none"):
        build_backbone(BackboneConfig(name="vit_mini", attention=AttentionConfig(kernel="flex")), img_size=28)


def test_an_older_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "AVAILABLE", False)
    with pytest.raises(ConfigError, match=r"^model\.toy\.attention\.kernel=flex needs PyTorch 2\.9"):
        ToyTraining(toy=ToyConfig(attention=AttentionConfig(score="relu", kernel="flex")))


def test_dropping_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^attn_drop_rate=0\.1: FlexAttention .* cannot drop weights"):
        BackboneConfig(attn_drop_rate=0.1, attention=AttentionConfig(score="relu", kernel="flex"))


def test_training_on_a_cpu_is_refused_in_one_line(tmp_path: Path) -> None:
    keys = ("--model.backbone.attention.score=relu", "--model.backbone.attention.kernel=flex")
    outcome = fit(tmp_path / "run", *keys, "--trainer.accelerator=cpu")
    assert_refused(outcome, "model.backbone.attention.kernel=flex: FlexAttention cannot train on the device cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_can_be_resumed_with_another_kernel(tmp_path: Path) -> None:
    relu, last = "--model.backbone.attention.score=relu", tmp_path / "one" / "checkpoints" / "last.ckpt"
    explicit, auto = (f"--model.backbone.attention.kernel={kernel}" for kernel in ("explicit", "auto"))
    fit(tmp_path / "one", relu, explicit).succeeded()
    again = fit(tmp_path / "one", relu, auto, "--ckpt_path=auto").succeeded()
    assert "nothing to do" in again.err
    fit(tmp_path / "two", relu, auto, f"--ckpt_path={last}", "--trainer.max_epochs=2").succeeded()


def test_a_toy_can_be_resumed_with_another_kernel() -> None:
    explicit, auto, softmax = (
        ToyTraining(toy=ToyConfig(attention=AttentionConfig(score=score, kernel=kernel)))  # type: ignore[arg-type]
        for score, kernel in (("relu", "explicit"), ("relu", "auto"), ("softmax", "auto"))
    )
    auto.on_load_checkpoint({"hyper_parameters": explicit.hparams})
    with pytest.raises(UserError, match=r"^model\.toy\.attention\.score=softmax differs from the checkpoint's relu"):
        softmax.on_load_checkpoint({"hyper_parameters": explicit.hparams})


def test_the_kernel_is_no_part_of_a_cells_identity() -> None:
    words = ["--model.backbone.attention.score=relu", "--seed_everything=1"]
    assert cell_id([*words, "--model.backbone.attention.kernel=explicit"]) == cell_id(words)
    assert cell_id([*words, "--model.backbone.attention.sink=zero"]) != cell_id(words)
