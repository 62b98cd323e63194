"""Softmax attention with one more term exp(c) in the denominator, on a fused kernel and without an extra column.

In the backward pass, flash kernels compute the weights as exp(s - l), where l is the log-sum-exp of a row that the
forward pass returned. With a sink, the weights are A = exp(s - log(exp(l) + exp(c))). So the kernel's backward pass
gives the gradients of q, k and v if it receives this sum instead of l, and the output A V. Context parallelism in
PyTorch uses the same property to merge the parts of a sequence.

Axis letters: B images, N tokens, H heads, d head width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
FLASH_WIDTHS = range(8, 129, 8)
"""Head widths for which every such GPU has flash kernels in both directions."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash_kernels(device: int) -> bool:
    """Return whether PyTorch can run flash kernels on a GPU."""
    enabled = torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.is_flash_attention_available()
    return enabled and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def is_usable(v: Tensor, dropout_p: float) -> bool:
    """Return whether there is a kernel for values (B, H, N, d) of this type, on their device.

    On a CPU, it cannot drop weights; on a GPU, it needs 16-bit numbers, as under autocast. The transforms of
    `torch.func`, such as `vmap`, have no rule for it.
    """
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return False
    if not v.is_cuda:
        return v.device.type == "cpu" and not dropout_p
    half = v.dtype in (torch.float16, torch.bfloat16)
    return half and v.shape[-1] in FLASH_WIDTHS and _has_flash_kernels(v.device.index)


class _SinkAttention(torch.autograd.Function):
    """Computes A V (B, H, N, d) from q, k, v and c (H,); see `attend`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, c: Tensor, scale: float, dropout_p: float) -> Tensor:
        """Run the kernel without the sink, and multiply its output by exp(l) / (exp(l) + exp(c))."""
        ctx.scale, ctx.dropout_p, ctx.lengths, state = scale, dropout_p, (), ()
        if q.device.type == "cpu":
            out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
        else:
            out, lse, *starts, max_q, max_k, seed, offset, _ = aten._scaled_dot_product_flash_attention(
                q, k, v, dropout_p, scale=scale
            )
            ctx.lengths, state = (max_q, max_k), (*starts, seed, offset)
        total = torch.logaddexp(lse, c[:, None].to(lse.dtype))
        out = out * (lse - total).exp_()[..., None].to(out.dtype)
        ctx.save_for_backward(q, k, v, c, out, total, *state)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Run the kernel's backward pass with the log-sum-exp that includes the sink."""
        q, k, v, c, out, total, *state = ctx.saved_tensors
        if q.device.type == "cpu":
            of_qkv = aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, q, k, v, out, total, 0.0, False, scale=ctx.scale
            )
        else:
            *starts, seed, offset = state
            of_qkv = aten._scaled_dot_product_flash_attention_backward(
                grad, q, k, v, out, total, *starts, *ctx.lengths, ctx.dropout_p, False, seed, offset, scale=ctx.scale
            )
        of_c = None
        if ctx.needs_input_grad[3]:  # minus the sink's weights times the rows' shares of the gradient
            share = (grad * out).sum(-1, dtype=total.dtype)
            of_c = -(share * (c[:, None].to(total.dtype) - total).exp()).sum((0, 2)).to(c.dtype)
        return *of_qkv, of_c, None, None


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, logit: Tensor | None, dropout_p: float = 0.0) -> Tensor:
    """Return A V (B, H, N, d) with A = exp(s) / (exp(c) + sum exp(s)) and s = scale q·k.

    Kernels read the coordinates of a head from adjacent memory without checking it, so others are copied.

    Args:
        q: Queries (B, H, N, d).
        k: Keys (B, H, N, d).
        v: Values (B, H, N, d), for which `is_usable` holds.
        scale: Factor of the logits.
        logit: c (H,); None is zero.
        dropout_p: Probability of dropping a weight.
    """
    c = v.new_zeros(v.shape[1]) if logit is None else logit
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q.to(v.dtype), k.to(v.dtype), v))
    out: Tensor = _SinkAttention.apply(q, k, v, c, scale, dropout_p)
    return out
