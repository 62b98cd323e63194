"""Check the edits of the first image in float64 against the model's own forward pass before anything is measured."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sinkablate.attention.module import Attention
from sinkablate.diagnostics.capture import per_query_head
from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.intervene.changes import Change, head_weights
from sinkablate.intervene.editor import Editor, updates
from sinkablate.intervene.replay import ActivationCache, Replay, copies
from sinkablate.vit.anatomy import classify, features, final_norm

MAX_ERROR = 1e-8
"""Largest error relative to the largest expected entry; errors that rounding can explain are subtracted before."""


@torch.no_grad()
def check_exactness(editor: Editor, image: int, tensor: Tensor) -> float:
    """Check all replays of one image in float64, in every chosen head, and return the largest error.

    The unedited replay must reproduce the output of the model and of its classifier. In every value edit, row i of the
    head's update must change by A_is W (g_i * (v'_s - v_s)), both in the replay and when the model itself runs with
    the value replaced.

    Args:
        editor: The editor with the model, the plan and the edits.
        image: Number of the image in the plan.
        tensor: The image (1, C, H, W).

    Raises:
        UserError: An error reaches `MAX_ERROR`, so the interventions would not measure what their names say.
    """
    exact = replace(editor, model=copy.deepcopy(editor.model).double(), plan=replace(editor.plan, everywhere=True))
    tensor, replay = tensor.double(), exact.replay
    cache = replay.run_with_cache(tensor)
    errors = {"unedited output": _output_error(exact.model, tensor, cache)}
    for block in replay.parts:
        changes = exact.changes(cache, image, block)
        last = replay.from_block(cache, block, *updates(exact.model, cache, block, []))
        errors[f"unedited replay of block {block}"] = _error(last, cache.last)
        valued = [change for change in changes if change.column is not None]
        for change, error in zip(valued, _value_errors(exact.model, replay, cache, block, valued), strict=True):
            errors[f"block {block} head {change.changed_head} {change.edit}"] = error
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] < MAX_ERROR:
        raise UserError(
            f"{type(editor.model).__name__}: {worst} is off by {errors[worst]:.1e} in float64 (limit "
            f"{MAX_ERROR:.0e}): the interventions would not describe this model"
        )
    return errors[worst]


def _output_error(model: nn.Module, tensor: Tensor, cache: ActivationCache) -> float:
    """Return the error of the features and the logits computed from the cached output of the last block."""
    own = features(model, tensor)
    error = min(_error(tokens, own) for tokens in (final_norm(model)(cache.last), cache.last))
    logits = classify(model, cache.last)
    return error if logits is None else max(error, _error(logits, model(tensor)))


def _value_errors(
    model: nn.Module, replay: Replay, cache: ActivationCache, block: int, changes: list[Change]
) -> list[float]:
    """Compare the closed form of every value edit with the model's own attention and with the replay."""
    view, stream = cache.views[block], cache.streams[block]
    size, all_errors = copies(view.layout.num_tokens), []
    own = _stream_after(replay, block, lambda: replay.from_block(cache, block, *updates(model, cache, block, [])))
    tolerated = 64 * torch.finfo(stream.dtype).eps * float(own.abs().max())
    for start in range(0, len(changes), size):
        group = changes[start : start + size]
        expected = torch.stack([closed_form(view, change) for change in group])
        replayed = (
            _stream_after(
                replay,
                block,
                lambda group=group: replay.from_block(  # type: ignore[misc]
                    cache, block, *updates(model, cache, block, group)
                ),
            )[1:]
            - own
        )
        errors = [_error(ours, closed, tolerated) for ours, closed in zip(replayed, expected, strict=True)]
        inside = [index for index, change in enumerate(group) if (change.column or 0) < view.layout.num_tokens]
        if inside:  # a null or k/v-bias column has no value that could be replaced in the call
            direct = _with_values(replay, cache, block, [group[index] for index in inside]) - own
            for index, measured in zip(inside, direct, strict=True):
                errors[index] = max(errors[index], _error(measured, expected[index], tolerated))
        all_errors += errors
    return all_errors


def closed_form(view: BlockView, change: Change) -> Tensor:
    """Return A_is W (g_i * (v'_s - v_s)) of a value edit, including LayerScale, (N, D)."""
    head, column = change.changed_head, change.column
    assert column is not None
    assert change.value is not None
    difference = (change.value - view.v[0, head, column]).expand(view.layout.num_tokens, -1)
    if view.gate is not None and not view.gates_values:
        difference = view.gate[0, head] * difference
    return head_weights(view, head)[:, column, None] * (difference @ view.out_map[head].T)


class _Recorded(Exception):  # noqa: N818
    """Ends a forward pass once the residual stream has been recorded."""


def _stream_after(replay: Replay, block: int, run: Callable[[], object]) -> Tensor:
    """Return the residual stream after the attention update of a block during `run`, (E, N, D)."""
    shapes: list[torch.Size] = []
    streams: list[Tensor] = []

    def start(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes.append(args[0].shape)

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        streams.append(args[0])
        raise _Recorded

    parts = replay.parts[block]
    handles = [parts.block.register_forward_pre_hook(start), parts.norm2.register_forward_pre_hook(stop)]
    try:
        with suppress(_Recorded):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return streams[0].view(shapes[0])  # the norm of OPT reads the tokens of all copies as one matrix


def _with_values(replay: Replay, cache: ActivationCache, block: int, changes: Sequence[Change]) -> Tensor:
    """Return the residual stream after a block's own attention with replaced values, (E, N, D)."""
    args, kwargs = cache.calls[block]
    parts = replay.parts[block]

    def replaced(v: Tensor) -> Tensor:
        v = v.clone()
        for index, change in enumerate(changes):
            assert change.value is not None
            v[index, change.changed_head, change.column] = change.value
        return v

    with ExitStack() as stack:
        if isinstance(parts.attn, Attention):
            hook = parts.attn.core.register_forward_pre_hook(lambda _, call: (*call[:2], replaced(call[2]), *call[3:]))
            stack.callback(hook.remove)
        else:
            stack.enter_context(_ReplaceValues(replaced))
        stream = cache.streams[block].expand(len(changes), -1, -1)
        return _stream_after(replay, block, lambda: parts.block(stream, *args, **kwargs))


class _ReplaceValues(TorchFunctionMode):
    """Passes replaced values to fused attention."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.replaced = replaced

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            kwargs |= dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
            num_heads = kwargs["query"].shape[1]
            if kwargs.pop("enable_gqa", False):  # the value of one query head, not of all that share it
                kwargs |= {name: per_query_head(kwargs[name], num_heads) for name in ("key", "value")}
            kwargs["value"] = self.replaced(kwargs["value"])
            args = ()
        return func(*args, **kwargs)


def _error(actual: Tensor, expected: Tensor, tolerated: float = 0.0) -> float:
    """Return the largest difference beyond `tolerated`, relative to the largest expected entry; infinite for NaN."""
    difference = float((actual - expected).abs().max())
    if not math.isfinite(difference):
        return math.inf
    excess = max(0.0, difference - tolerated)
    return excess / max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
