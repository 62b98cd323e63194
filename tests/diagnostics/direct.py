"""Every quantity computed directly from its definition, in float64: explicit u, N x N weights, SVD."""

from math import log, nan

import numpy as np
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenType

Array = NDArray[np.float64]


def direct(view: BlockView, t: ThresholdConfig) -> dict[str, Array]:
    """Quantity name -> values (B, H), computed head by head."""
    batch, heads = view.q.shape[:2]
    weights = view.weights().double().numpy()
    rows = [[_head(weights[b, h], view, b, h, t) for h in range(heads)] for b in range(batch)]
    return {name: np.array([[head[name] for head in row] for row in rows]) for name in rows[0][0]}


def _head(A: Array, view: BlockView, b: int, h: int, t: ThresholdConfig) -> dict[str, float]:
    n, m = A.shape
    size = np.abs(A)
    E = size if view.rows_sum_to_one else np.array([row / row.sum() if row.sum() > 0 else row for row in size])
    visible = np.ones((n, m), bool) if view.visible is None else view.visible.numpy()
    queries = visible.sum(0)  # number of queries that can attend to each column
    columns = np.where(2 * queries < queries[: view.layout.num_tokens].max(), 0, E.sum(0) / queries)
    s = int(columns.argmax())
    a = E[:, s]
    routed, judged = a >= t.routed_min, visible[:, s]
    types = [int(kind) for kind in np.atleast_2d(view.column_types().numpy())[0 if view.token_types is None else b]]
    W, v = view.out_map[h].double().numpy(), view.v[b, h].double().numpy()
    u = v @ W.T
    residual = np.linalg.norm(view.residual[b].double().numpy(), axis=1).mean()
    others = [j for j in range(n) if j != s]
    registers = [j for j in range(m) if types[j] == TokenType.REGISTER]
    top = np.argsort(-columns, kind="stable")[: t.group_top_k]
    entropies = [
        -sum(p * log(p) for p in row / row.sum() if p > 0) / log(keys)
        for row, keys in zip(size, visible.sum(1), strict=True)
        if row.sum() > 0 and keys > 1
    ]
    carried = sum(size[:, j].sum() for j in range(m) if types[j] != TokenType.NULL) / n
    summed = view.rows_sum_to_one and view.rows_at_most_one
    out = {
        "sink_idx": s,
        "sink_type": types[s],
        "mass": a[judged].mean(),
        "routed_frac": routed[judged].mean(),
        "min_a": a[judged].min(),
        **{f"routed_frac_at_{level:g}": np.mean(a[judged] >= level) for level in t.routed_grid},
        "sink_token_norm": float(np.linalg.norm(view.residual[b, s].double().numpy())) if s < n else nan,
        "cond_mass": a[routed].mean() if routed.any() else nan,
        "entropy": np.mean(entropies) if entropies and m > 1 else nan,
        "row_mass": size[:, :n].sum() / n,
        "null_mass": nan if not summed else 1 - carried if view.takes_null else 0.0,
        "dead_rows": np.mean(size.sum(1) == 0),
        "group_routed_frac": np.mean(E[:, registers].sum(1) >= t.routed_min) if registers else nan,
        "topk_routed_frac": np.mean(E[:, top].sum(1)[visible[:, top].any(1)] >= t.routed_min),
        "ratio_head": value_ratio(v, s, others),
        "ratio_out": value_ratio(u, s, others),
        "sink_head_norm": float(np.linalg.norm(v[s])),
        "sink_value_norm": float(np.linalg.norm(u[s])),
    }
    mean_u = np.linalg.norm(u[:n], axis=1).mean()
    out |= update(A @ u, routed, mean_u, residual, t)
    if view.gate is None:
        return out
    gate = view.gate[b, h].double().numpy()
    openness = gate.mean(1)
    out |= {"gate_open": gate.mean()}
    if view.gates_values:
        raw = view.raw_v[b, h].double().numpy()
        ungated = update(A @ raw @ W.T, routed, mean_u, residual, t)
        return out | {
            "raw_ratio_head": value_ratio(raw, s, others),
            "raw_ratio_out": value_ratio(raw @ W.T, s, others),
            "raw_stable_rank": ungated["stable_rank"],
            "raw_update_norm": ungated["update_norm"],
        }
    out |= {"gate_corr": float(np.corrcoef(openness, a)[0, 1]) if n > 1 else nan}
    passed = []
    for j in range(n):  # each value after the mean gate of its own queries
        own = (size[:, j] / size[:, j].sum()) @ gate if size[:, j].sum() > 0 else gate.mean(0)
        passed.append(np.linalg.norm(W @ (own * v[j])))
    gated = update((gate * (A @ v)) @ W.T, routed, np.mean(passed), residual, t)
    del gated["rank1_energy"]
    handed = np.linalg.norm(W @ (gate[routed].mean(0) * v[s])) if routed.any() else nan
    return (
        out
        | {f"gated_{name}": x for name, x in gated.items()}
        | {"gated_ratio_out": ratio(handed, np.mean([passed[j] for j in others])) if others else nan}
    )


def ratio(x: float, y: float) -> float:
    return x / y if y > 0 else nan


def value_ratio(x: Array, s: int, others: list[int]) -> float:
    return ratio(float(np.linalg.norm(x[s])), np.linalg.norm(x[others], axis=1).mean()) if others else nan


def rank(U: Array) -> float:
    """||U||_F^2 / sigma_1^2 by singular values."""
    if U.size == 0 or not U.any():
        return nan
    sigma = np.linalg.svd(U, compute_uv=False)
    return float((sigma**2).sum() / sigma[0] ** 2)


def update(U: Array, routed: NDArray[np.bool_], mean_u: float, residual: float, t: ThresholdConfig) -> dict[str, float]:
    norms = np.linalg.norm(U, axis=1)
    return {
        "stable_rank": rank(U),
        "routed_stable_rank": rank(U[routed]),
        "rank1_energy": 1 / rank(U),
        "update_norm": norms.mean(),
        "rel_update": ratio(norms.mean(), residual),
        "quiet_frac": np.mean(norms <= t.quiet_max * mean_u) if mean_u > 0 else nan,
    }
