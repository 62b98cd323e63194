"""Tap a model: one `BlockView` per block and batch, checked against the model's own output.

q, k and v are captured at the attention function: the core of this package's attention is hooked, and in every other
block the call of `F.scaled_dot_product_attention` is intercepted, with its fused kernel left on. Weights are recomputed
from q and k.
"""

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from sinkablate.attention.module import Attention
from sinkablate.diagnostics.activations import max_abs
from sinkablate.diagnostics.capture import Capture, block_view, rebuild_error
from sinkablate.diagnostics.shares import host_can_read
from sinkablate.diagnostics.view import BlockView
from sinkablate.diagnostics.visibility import Visibility
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import BlockParts, block_parts, blocks_of, features, reads_texts
from sinkablate.vit.tokens import TokenLayout, text_tokens, token_layout

MAX_REBUILD_ERROR = 1e-4
"""Largest accepted relative error of a rebuilt block; a larger error means that something else would be measured."""


class NonfiniteError(UserError):
    """A model cannot be measured because it computes NaN or infinity, as after a diverged training step."""


class Consumer(Protocol):
    """Receives the blocks of one batch, in their order."""

    def attention(self, view: BlockView) -> None:
        """Called after a block's attention and before its MLP; captured tensors are released afterward."""

    def output(self, index: int, x: Tensor) -> None:
        """Called with the block's output (B, N, D)."""


class _SdpaListener(TorchFunctionMode):
    """Records arguments and output of fused attention calls; the calls run unchanged.

    It is active while an attention module runs. A mode that the model itself uses is then entered and left either
    around that module or inside it, so that each leaves itself and not the other.
    """

    def __init__(self, tap: "Tap") -> None:
        super().__init__()
        self.tap = tap

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.tap.listening is not None:
            names = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal", "scale")
            spelled = {"query": "q", "key": "k", "value": "v"}
            call = dict(zip(names, args, strict=False)) | {spelled.get(k, k): v for k, v in kwargs.items()}
            call["out"] = func(*args, **kwargs)
            self.tap.listening.calls.append(call)
            return call["out"]
        return func(*args, **kwargs)


class Tap:
    """Context manager that measures a transformer; its hooks are removed on exit, even after an exception.

    Args:
        model: The original, uncompiled model in eval mode with fp32 (or fp64) weights.
        consumer: Receives every chosen block of every batch.
        blocks: Indices of the blocks to measure; None measures all.
        rebuild: Rebuild every block on the first batch; unnecessary if the same model has been rebuilt before.

    Raises:
        NonfiniteError: The activations of a block are NaN or infinite.
        UserError: The family cannot be measured, a block did not run exactly once, or a rebuilt block differs from the
            model's own output by more than `MAX_REBUILD_ERROR`.
    """

    def __init__(
        self, model: nn.Module, consumer: Consumer, blocks: Sequence[int] | None = None, rebuild: bool = True
    ) -> None:
        self.model = model
        self.consumer = consumer
        self.parts = {
            index: block_parts(model, index) for index in (range(len(blocks_of(model))) if blocks is None else blocks)
        }
        self.rebuild_errors: dict[int, float] = {} if rebuild else dict.fromkeys(self.parts, 0.0)
        """Relative error of each block's rebuild on the first batch."""
        self.listening: Capture | None = None
        self._listener = _SdpaListener(self)
        self._texts = reads_texts(model)
        self._visibility = Visibility(self._texts)
        self._checks: dict[int, Tensor] = {}
        self._token_types: Tensor | None = None
        self._image_size: tuple[int, int] = (0, 0)
        self._open: dict[int, Capture] = {}
        self._runs: dict[int, int] = {}
        self._handles: list[RemovableHandle] = []
        dtype = next(model.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"diagnostics need fp32 weights, got {dtype}: call model.float(), or train with precision bf16-mixed"
            )

    def __enter__(self) -> Self:
        for index, parts in self.parts.items():
            self._attach(index, parts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._open.clear()

    @torch.no_grad()
    def run(self, images: Tensor) -> None:
        """Run one batch and pass its blocks to the consumer; the first batch is checked.

        Args:
            images: Images (B, C, H, W), or texts of one length (B, 2, N) as described at `text_tokens`.
        """
        self._runs = dict.fromkeys(self.parts, 0)
        self._checks = {}
        self._visibility.begin()
        self._token_types = text_tokens(images)[1] if self._texts else None
        self._image_size = images.shape[-2], images.shape[-1]
        try:
            features(self.model, images if self._texts else images.to(next(self.model.parameters()).dtype))
        finally:
            self._listen(None)
        for index, times in self._runs.items():
            if times != 1:
                raise UserError(
                    f"{type(self.model).__name__} cannot be measured: block {index} ran {times} times "
                    "in one forward pass"
                )
        self._visibility.end()
        self._judge()

    def _judge(self) -> None:
        """Refuse a model whose blocks could not be rebuilt on the first batch. The host waits for a GPU here."""
        checks, self._checks = self._checks, {}
        if not checks:
            return
        for index, (error, largest) in zip(checks, torch.stack([*checks.values()]).tolist(), strict=True):
            if not math.isfinite(largest):
                raise NonfiniteError(f"block {index}: its activations are NaN or infinite")
            if not error < MAX_REBUILD_ERROR:
                raise UserError(
                    f"{type(self.model).__name__}: block {index} rebuilt from its captured tensors differs "
                    f"from the model's own output by {error:.1e} (limit {MAX_REBUILD_ERROR:.0e}): "
                    "the diagnostics would not describe this model"
                )
            self.rebuild_errors[index] = error

    def _attach(self, index: int, parts: BlockParts) -> None:
        """Hook one block; its capture exists only while the block runs."""

        def note(name: str) -> Callable[..., None]:
            """Return a forward hook that stores an output, or the first of several, under `name`."""

            def hook(_: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
                setattr(self._open[index], name, output[0] if isinstance(output, tuple) else output)

            return hook

        def note_core(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._open[index].calls.append(dict(zip("qkv", args[:3], strict=True)) | {"out": output})

        self._handles += [
            parts.block.register_forward_pre_hook(lambda _, args: self._open_block(index, args[0])),
            parts.update.register_forward_hook(note("attn_out")),
            parts.norm2.register_forward_pre_hook(lambda _, args: self._close_attention(index, args[0])),
            parts.block.register_forward_hook(lambda _, _args, output: self._close_block(index, output)),
        ]
        if parts.gate is not None:
            self._handles.append(parts.gate.register_forward_hook(note("gate")))
        if parts.pathway is not None:
            self._handles.append(parts.pathway.register_forward_hook(note("pathway")))
        if isinstance(parts.attn, Attention):
            self._handles += [
                parts.attn.core.register_forward_hook(note_core),
                parts.attn.qkv.register_forward_hook(note("qkv")),
            ]
        else:
            self._handles += [
                parts.attn.register_forward_pre_hook(lambda *_: self._listen(self._open.get(index))),
                parts.attn.register_forward_hook(lambda *_: self._listen(None)),
            ]

    def _open_block(self, index: int, x: Tensor) -> None:
        self._open[index] = Capture(x)

    def _listen(self, capture: Capture | None) -> None:
        """Record fused attention calls in a capture, or stop; other operations run without the listener."""
        if (capture is None) != (self.listening is None):
            self._listener.__enter__() if capture else self._listener.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.listening = capture

    def _close_attention(self, index: int, mid: Tensor) -> None:
        """Build the view once attention is done; `mid` (B, N, D) is the residual stream after its update."""
        if index not in self._open:  # the norm ran a second time
            return
        capture, parts = self._open.pop(index), self.parts[index]
        if mid.numel() == capture.x.numel():
            mid = mid.view_as(capture.x)  # the norm of OPT reads all tokens as one matrix
        capture.mid = mid
        num_tokens = mid.shape[1]
        if self._texts:
            layout = TokenLayout(0, 0, num_tokens)
        else:
            layout = token_layout(self.model, num_tokens, self._image_size)
        view = block_view(index, parts, capture, layout, self._token_types, self._visibility)
        if index not in self.rebuild_errors:
            self._checks[index] = torch.stack((rebuild_error(view, parts, capture), max_abs(mid).amax()))
            if host_can_read(mid):
                self._judge()
        self.consumer.attention(view)

    def _close_block(self, index: int, output: Any) -> None:
        if index in self._open:
            raise UserError(
                f"{type(self.model).__name__} cannot be measured: the MLP of block {index} does not start "
                "at its second norm"
            )
        self._runs[index] += 1
        self.consumer.output(index, output[0] if isinstance(output, tuple) else output)
