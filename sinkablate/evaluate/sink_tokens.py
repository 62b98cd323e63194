"""Which tokens of an image are sinks, and as many random others as a control.

A token is a sink of an image if it is the dominant column of a head that has an event by a rule of the diagnostics, in
any block that counts (`diagnostics.counting`). Columns that are not tokens, such as a null column, are left out.

Axis letters: n images, L blocks, H heads, N tokens.
"""

import numpy as np
import torch
from torch import Tensor

from sinkablate.diagnostics.counting import counted
from sinkablate.diagnostics.labels import apply, is_event
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Rule


def sink_tokens(records: Records, rule: Rule) -> Tensor:
    """Return which tokens are sinks, (n, N) bool.

    Args:
        records: The measurements of all blocks.
        rule: Decides whether a head has an event.
    """
    dominant, events = records.heads["sink_idx"].astype(np.int64), is_event(apply(rule, records.heads))
    events = events & counted(range(events.shape[1]))[:, None]
    sinks = np.zeros((len(dominant), records.layout.num_tokens + 1), np.bool_)
    images = np.broadcast_to(np.arange(len(dominant))[:, None, None], dominant.shape)
    sinks[images[events], np.minimum(dominant[events], records.layout.num_tokens)] = True
    return torch.from_numpy(sinks[:, :-1].copy())


def random_tokens(sinks: Tensor, seed: int) -> Tensor:
    """Return as many random tokens that are not sinks as each image has sinks, (n, N) bool.

    An image in which most tokens are sinks gets all of its other tokens.

    Args:
        sinks: The sinks, (n, N) bool.
        seed: Seed of the choice.
    """
    order = torch.rand(sinks.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = order.masked_fill(sinks, 2).argsort(1).argsort(1)  # sinks come last
    return (rank < sinks.sum(1, keepdim=True)) & ~sinks
