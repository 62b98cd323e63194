"""The attention core: queries, keys and values to the weighted sum of values, for every score and sink.

Axis letters: B images, N tokens, H heads, d head width, M key columns (N, or N + 1 with a sink's column last).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sinkablate.attention import denominator, flex
from sinkablate.attention.scores import SCORES
from sinkablate.attention.sinks import SINKS
from sinkablate.config import AttentionConfig, require

SINK_STD = 0.02
"""Standard deviation of a learned sink's key and value at initialization."""


def with_column(tokens: Tensor, column: Tensor) -> Tensor:
    """Append a column (B or 1, H or 1, 1, d or 1) to keys or values (B, H, N, d).

    A single concatenation reads the strided keys or values once; padding would fill a new tensor and then copy.

    Returns:
        Keys or values (B, H, N + 1, d).
    """
    batch, heads, _, width = tokens.shape
    return torch.cat((tokens, column.to(tokens.dtype).expand(batch, heads, 1, width)), dim=2)


class AttentionCore(nn.Module):
    """Computes the weighted sum of values, with fused kernels where the mechanism allows.

    A forward hook on this module receives q, k and v as the mechanism uses them, and `columns`, `logits` and `weights`
    reproduce what the forward pass computed. The properties tell measurements how to read the weights, so that a new
    score or sink needs no change outside this folder. Parameters exist only where the mechanism has them: `sink_logit`
    (H,), `sink_key` and `sink_value` (H, 1, d), and those of the score, such as `score_bias` (H,).

    Args:
        config: The mechanism.
        num_heads: H.
        head_dim: d.
    """

    def __init__(self, config: AttentionConfig, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = head_dim**-0.5
        self.score, self.sink, self.kernel = SCORES[config.score](config), SINKS[config.sink], config.kernel
        if config.kernel == "flex":
            self._require_flex(config)
        for part in self.sink.learned if self.sink is not None else ():
            shape = (num_heads,) if part == "logit" else (num_heads, 1, head_dim)
            self.register_parameter(f"sink_{part}", nn.Parameter(torch.zeros(shape)))
        for name in self.score.parameters:
            self.register_parameter(name, nn.Parameter(torch.zeros(num_heads)))

    def _require_flex(self, config: AttentionConfig) -> None:
        """Refuse `kernel: flex` where it cannot be used."""
        key, mechanism = "attention.kernel=flex", f"score={config.score} with sink={config.sink}"
        if config.score == "pointwise":
            mechanism = f"pointwise_function={config.pointwise_function}"
        elif config.score == "polynomial":
            mechanism = f"polynomial_power={config.polynomial_power}"
        require(self.has_flex_form, f"{key}: FlexAttention does not compute {mechanism}; use auto")
        require(flex.AVAILABLE, f"{key} needs PyTorch 2.9 or newer, got {torch.__version__}; use auto")

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Token types of the key columns beyond the N tokens: (), ("null",) or ("kv_bias",)."""
        return () if self.sink is None else self.sink.columns

    @property
    def rows_sum_to_one(self) -> bool:
        """Whether weights are shares of a row, possibly together with a part that no token receives."""
        return self.score.rows_sum_to_one

    @property
    def rows_at_most_one(self) -> bool:
        """Whether no row of weights sums to more than one."""
        return self.score.rows_at_most_one

    @property
    def takes_null(self) -> bool:
        """Whether part of a row can go to no token: to a sink whose value is zero, or by clipping."""
        return self.score.takes_null or (self.sink is not None and self.sink.takes_null)

    @property
    def has_flex_form(self) -> bool:
        """Whether FlexAttention can compute this mechanism."""
        if self.sink is not None:
            return self.is_softmax_with_denominator
        return self.score.exponential is not None

    @property
    def is_softmax_with_denominator(self) -> bool:
        """Whether the weights are those of softmax, with one more term per head in the denominator."""
        return self.score.is_softmax and self.sink is not None and self.sink.is_denominator

    @torch.no_grad()
    def reset_parameters(self, generator: Callable[[str], Generator], normal: Callable[..., Tensor]) -> None:
        """Initialize the parameters of the score and the sink.

        Args:
            generator: Gives the random generator of each parameter name.
            normal: Initializer of keys and values, called with `std` and `generator`, such as `nn.init.normal_`.
        """
        for name, parameter in self.named_parameters():
            if name in ("sink_key", "sink_value"):
                normal(parameter, std=SINK_STD, generator=generator(name))
            else:
                parameter.zero_()

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that an optimizer should not decay: all of them."""
        return {name for name, _ in self.named_parameters()}

    def columns(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the sink's column, if there is one, to keys and values (B, H, N, d)."""
        if self.sink is None:
            return k, v
        return with_column(k, self._sink_part("key", k)), with_column(v, self._sink_part("value", v))

    def _sink_part(self, part: str, tokens: Tensor) -> Tensor:
        """Return the sink's key or value, broadcastable to (B, H, 1, d)."""
        assert self.sink is not None
        if part in self.sink.learned:
            learned: Tensor = getattr(self, f"sink_{part}")
            return learned
        compute = self.sink.key if part == "key" else self.sink.value
        return tokens.new_zeros(1, 1, 1, 1) if compute is None else compute(tokens)

    def logits(self, q: Tensor, k: Tensor, heads: slice = slice(None)) -> Tensor:
        """Return scaled logits (B, h, N, M), including the sink's column; the arguments are those of `weights`."""
        s = (q * self.scale) @ k.transpose(-2, -1)
        if (bias := self.logit_bias(k.shape[2])) is not None:
            s = s + bias[:, heads].to(s.dtype)
        return s

    def logit_bias(self, columns: int) -> Tensor | None:
        """Return what is added to the logits of M key columns, (1, H, 1, M): the learned offset of the last column."""
        offset = self._logit_offset()
        return None if offset is None else F.pad(offset[None, :, None, None], (columns - 1, 0))

    def _logit_offset(self) -> Tensor | None:
        """Return the learned offset (H,) on the logits of the sink's column."""
        offset: Tensor | None = getattr(self, "sink_logit", None)
        return offset

    def weights(self, q: Tensor, k: Tensor, heads: slice = slice(None)) -> Tensor:
        """Return the attention weights A (B, h, N, M), computed explicitly.

        Args:
            q: Queries of the selected heads (B, h, N, d).
            k: Keys of the selected heads (B, h, M, d), as returned by `columns`.
            heads: Which of the H heads these are.
        """
        learned = {name: getattr(self, name)[heads] for name in self.score.parameters}
        return self.score.weights(self.logits(q, k, heads), **learned)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, fused: bool = True) -> Tensor:
        """Return the weighted values (B, H, N, d) of q, k and v (B, H, N, d).

        Args:
            q: Queries.
            k: Keys.
            v: Values.
            dropout_p: Probability of dropping a weight.
            fused: Use a fused kernel if there is one for the mechanism.
        """
        if fused and not dropout_p and self._prefers_flex(q):
            return self.forward_flex(q, k, v)
        if fused and self.is_softmax_with_denominator and denominator.is_usable(v, dropout_p):
            return denominator.attend(q, k, v, self.scale, self._logit_offset(), dropout_p)
        k, v = self.columns(k, v)
        if not fused or not self.score.is_softmax:
            return F.dropout(self.weights(q, k), dropout_p) @ v
        if (offset := self._logit_offset()) is not None:
            return self._fused_with_offset(q, k, v, offset, dropout_p)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)

    def _prefers_flex(self, q: Tensor) -> bool:
        """Whether FlexAttention is to be used for queries (B, H, N, d).

        Never on a CPU, where it is not a kernel, nor in float64, which its kernels do not multiply.
        """
        if self.kernel == "explicit" or not q.is_cuda or q.dtype == torch.float64 or not self.has_flex_form:
            return False
        if self.kernel == "flex":
            return True
        gains = self.score.exponential is not None and q.shape[2] >= flex.MIN_TOKENS  # sinks have a faster kernel
        return gains and flex.AVAILABLE and torch.compiler.is_compiling()

    def forward_flex(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the weighted values (B, H, N, d) computed with FlexAttention, for mechanisms with a flex form."""
        if self.score.exponential is None:
            return flex.attend_with_sink(q, k, v, self.scale, self._logit_offset())
        offsets = [getattr(self, name) for name in self.score.parameters]
        bias = torch.stack(offsets).sum(0) if offsets else None
        return flex.attend_with_exponential(q, k, v, self.scale, self.score.exponential, bias)

    def _fused_with_offset(self, q: Tensor, k: Tensor, v: Tensor, offset: Tensor, dropout_p: float) -> Tensor:
        """Compute fused softmax attention with an offset c_h (H,) on the logits of the last column.

        c_h is stored in one more head coordinate, which is 1 in every query and c_h sqrt(d) in the last key. No mask
        is needed, so flash kernels can be used; they require a head width that is a multiple of 8.
        """
        head_dim = q.shape[-1]
        q, k = flex.with_logits(q, k, F.pad(offset[:, None], (k.shape[2] - 1, 0))[..., None], self.scale)
        v = F.pad(v, (0, q.shape[-1] - head_dim))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=self.scale)
        return out[..., :head_dim]
