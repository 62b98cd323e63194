"""Operations counted on tensors without content agree with closed forms."""

import pytest
import torch
from torch import Tensor, nn

from sinkablate.config import BackboneConfig
from sinkablate.config.attention import AttentionConfig
from sinkablate.plan.operations import Kernel, Work, count_work
from sinkablate.vit.backbone import build_backbone


class Layer(nn.Module):
    """A linear layer and a relu, with views in between."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(4, 2, 32).transpose(0, 1).relu()


def test_flops_bytes_and_operations_of_a_layer() -> None:
    work = count_work(Layer(), lambda layer: layer(torch.empty(8, 16)))
    product = Kernel(2 * 8 * 16 * 32, 4 * (8 * 16 + 16 * 32 + 32 + 8 * 32), half=False)
    relu = Kernel(0, 4 * (2 * 8 * 32), half=False)
    assert work.kernels == {product: 1, relu: 1}
    assert (work.flops, work.bytes, work.launches) == (product.flops, product.bytes + relu.bytes, 2)
    assert (work * 3 + work).launches == 8


def test_autocast_halves_the_traffic_and_adds_casts() -> None:
    def program(layer: Layer) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.empty(8, 16))

    work = count_work(Layer(), program)
    assert Kernel(2 * 8 * 16 * 32, 2 * (8 * 16 + 16 * 32 + 32 + 8 * 32), half=True) in work.kernels
    assert work.launches == 5  # the product, the relu, and casts of the input, the weight and the bias


def test_a_broadcast_operand_is_read_once() -> None:
    work = count_work(nn.Identity(), lambda _: torch.empty(1, 8).expand(1000, 8) * torch.empty(1000, 8))
    assert work.bytes == 4 * (8 + 2 * 8000)


def test_numbers_read_by_the_host_are_counted_and_need_no_content() -> None:
    def program(layer: Layer) -> None:
        out = layer(torch.empty(8, 16))
        assert float(out.detach().sum()) == 0
        assert torch.isfinite(out).all()

    assert count_work(Layer(), program).synchronizations == 2


@pytest.mark.parametrize("gate", ["none", "headwise"])
def test_a_training_step_takes_three_times_the_flops_of_a_forward_pass(gate: str) -> None:
    config = BackboneConfig(depth=2, attention=AttentionConfig(gate=gate))  # type: ignore[arg-type]
    model = build_backbone(config, num_classes=10, in_chans=1, img_size=28, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    forward = count_work(model, lambda bare: bare(torch.empty(4, 1, 28, 28)))
    both = count_work(model, lambda bare: bare(torch.empty(4, 1, 28, 28)).sum().backward())
    assert both.flops == pytest.approx(3 * forward.flops, rel=0.05)  # attention computes its scores twice
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_no_work_is_empty() -> None:
    assert (Work().flops, Work().bytes, Work().launches) == (0, 0, 0)
