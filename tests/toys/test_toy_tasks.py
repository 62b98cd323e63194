"""The toy tasks: targets in closed form, seeding, and tensors that are the same for every mechanism."""

from dataclasses import replace

import pytest
import torch
from tapping import tapped
from variants import noise

from sinkablate.config import AttentionConfig, PathwayConfig, ToyConfig
from sinkablate.errors import UserError
from sinkablate.toys.measures import measures, null_token, resting_column, source_token, verdict, verdicts
from sinkablate.toys.model import build_toy
from sinkablate.toys.tasks import ToyTask, evaluation_tokens, training_batch

NOP, BROADCAST, MIXED = ToyConfig(), ToyConfig(task="broadcast"), ToyConfig(task="mixed", tokens=16)
MECHANISMS = [
    {},
    {"attention": AttentionConfig(gate="headwise")},
    {"attention": AttentionConfig(gate="elementwise")},
    {"attention": AttentionConfig(gate="headwise", gate_position="value")},
    {"attention": AttentionConfig(sink="zero")},
    {"attention": AttentionConfig(sink="learned")},
    {"attention": AttentionConfig(sink="kv_bias")},
    {"attention": AttentionConfig(score="sigmoid")},
    {"attention": AttentionConfig(score="clipped_softmax")},
    {"registers": 2},
    {"pathway": PathwayConfig(kind="global")},
    {"pathway": PathwayConfig(kind="global", gating="hierarchical")},
]


# ---- targets


@pytest.mark.parametrize("p_nop", [0.1, 0.5, 0.9])
def test_the_share_of_resting_tokens(p_nop: float) -> None:
    task = ToyTask.draw(replace(NOP, p_nop=p_nop), 0)
    tokens = evaluation_tokens(NOP, 0, 2000)
    assert float(task.rests(tokens).double().mean()) == pytest.approx(p_nop, abs=0.01)


def test_nop_targets_token_by_token() -> None:
    task, tokens = ToyTask.draw(NOP, 3), noise(2, 31, 64)
    update = ToyTask.draw(replace(NOP, supervise="update", gamma=0.1), 3)
    assert torch.equal(task.direction, update.direction)
    for b in range(2):
        for i in range(31):
            x, rests = tokens[b, i], bool(tokens[b, i] @ task.direction <= 0)  # Phi^-1(.5) = 0
            assert torch.equal(task.target(tokens)[b, i], x if rests else torch.zeros(64))
            torch.testing.assert_close(update.target(tokens)[b, i], 0.1 * x if rests else x)
    outputs = noise(2, 31, 64, seed=1)
    assert torch.equal(task.prediction(tokens, outputs), outputs)
    assert torch.equal(update.prediction(tokens, outputs), outputs - tokens)


def test_broadcast_targets() -> None:
    task, tokens = ToyTask.draw(replace(BROADCAST, alpha=0.5), 1), noise(3, 32, 64)
    torch.testing.assert_close(task.rotation @ task.rotation.T, torch.eye(64), atol=1e-5, rtol=0)
    for b in range(3):
        source = max(range(32), key=lambda j: float(tokens[b, j] @ task.direction))
        torch.testing.assert_close(task.target(tokens)[b], tokens[b] + 0.5 * (tokens[b, source] @ task.rotation))


def test_mixed_targets() -> None:
    task, tokens = ToyTask.draw(replace(MIXED, alpha=0.5), 1), noise(3, 16, 64)
    nop, broadcast = ToyTask.draw(NOP, 1), ToyTask.draw(BROADCAST, 1)
    assert torch.equal(task.direction, nop.direction)
    assert torch.equal(task.rotation, broadcast.rotation)
    assert abs(float(task.direction @ task.source_direction)) < 0.5
    assert float(task.source_direction.norm()) == pytest.approx(1, rel=1e-6)
    assert float(task.source_direction.mean()) == pytest.approx(0, abs=1e-7)
    for b in range(3):
        source = max(range(16), key=lambda j: float(tokens[b, j] @ task.source_direction))
        message = 0.5 * (tokens[b, source] @ task.rotation)
        for i in range(16):
            kept = tokens[b, i] if float(tokens[b, i] @ task.direction) <= 0 else torch.zeros(64)
            torch.testing.assert_close(task.target(tokens)[b, i], kept + message)
    assert torch.equal(task.prediction(tokens, tokens), tokens)


def test_a_perfect_nop_head_solves_the_task() -> None:
    """The closed form of the task: resting tokens write nothing, the others write -x."""
    task, tokens = ToyTask.draw(NOP, 0), evaluation_tokens(NOP, 0, 4)
    written = torch.where(task.rests(tokens)[..., None], 0.0, -tokens)
    assert torch.equal(task.prediction(tokens, tokens + written), task.target(tokens))


# ---- seeds


@pytest.mark.parametrize("base", [NOP, BROADCAST, MIXED], ids=["nop", "broadcast", "mixed"])
def test_every_mechanism_gets_the_same_task_data_and_shared_parameters(base: ToyConfig) -> None:
    plain = dict(build_toy(base, 5).named_parameters())
    task = ToyTask.draw(base, 5)
    for fields in MECHANISMS[1:]:
        config = replace(base, **fields)
        other = ToyTask.draw(config, 5)
        assert torch.equal(task.direction, other.direction)
        assert torch.equal(task.rotation, other.rotation)
        assert torch.equal(task.source_direction, other.source_direction)
        assert torch.equal(training_batch(base, 5, 7, 3), training_batch(config, 5, 7, 3))
        assert torch.equal(evaluation_tokens(base, 5, 3), evaluation_tokens(config, 5, 3))
        for name, p in build_toy(config, 5).named_parameters():
            if name in plain and plain[name].shape == p.shape:
                assert torch.equal(p, plain[name]), name


def test_data_streams_are_disjoint() -> None:
    drawn = [training_batch(NOP, seed, step, 1) for seed in (0, 1) for step in (0, 1)] + [evaluation_tokens(NOP, 0, 1)]
    for index, batch in enumerate(drawn):
        assert not any(torch.equal(batch, other) for other in drawn[index + 1 :])


# ---- the model under the tap


@pytest.mark.parametrize("fields", MECHANISMS, ids=str)
@pytest.mark.parametrize("base", [NOP, BROADCAST, MIXED], ids=["nop", "broadcast", "mixed"])
def test_every_mechanism_is_measured(base: ToyConfig, fields: dict[str, object]) -> None:
    config = replace(base, **fields)  # type: ignore[arg-type]
    model = build_toy(config, 0)
    views, _, errors = tapped(model, noise(2, config.drawn, 64))
    assert max(errors.values()) < 1e-5
    assert len(views) == config.depth
    assert views[0].q.shape[1] == config.heads
    assert views[0].layout.num_tokens == config.tokens + config.registers
    assert views[0].layout.num_registers == config.prefix
    model(noise(2, config.drawn, 64)).square().mean().backward()
    idle = {"mlp.fc2.bias"} if base.task == "broadcast" else set()
    for name, p in model.named_parameters():
        assert p.grad is not None or name in idle, name


def test_positions_and_the_null_token_enter_at_the_first_norm_only() -> None:
    model = build_toy(NOP, 0)
    model.blocks[0].attn.proj.weight.data.zero_()
    tokens = noise(2, 31, 64)
    assert torch.equal(model(tokens), tokens)
    assert torch.equal(model.forward_features(tokens)[:, 0], torch.zeros(2, 64))
    assert not [name for name, _ in model.named_parameters() if name.endswith(("qkv.bias", "proj.bias"))]


def test_measures_of_the_null_token() -> None:
    """The measures, compared with the weights of the view."""
    task, tokens = ToyTask.draw(NOP, 0), evaluation_tokens(NOP, 0, 3)
    (view,), _, _ = tapped(build_toy(NOP, 0), tokens)
    weights, rests = view.weights()[:, 0], task.rests(tokens)
    measures = null_token(view, task, tokens)
    resting = [weights[b, 1 + i, 0] for b in range(3) for i in range(31) if rests[b, i]]
    assert measures["attention_nop"] == pytest.approx(float(torch.stack(resting).mean()), rel=1e-5)
    norms = (view.v[:, 0] @ view.out_map[0].T).norm(dim=-1)
    assert measures["value_ratio"] == pytest.approx(float(norms[:, 0].mean() / norms[:, 1:].mean()), rel=1e-5)
    task, tokens = ToyTask.draw(BROADCAST, 0), evaluation_tokens(BROADCAST, 0, 3)
    views, _, _ = tapped(build_toy(BROADCAST, 0), tokens)
    inflow = views[1].weights()[:, 0].mean(1)
    at = task.source(tokens)
    assert source_token(views[1], task, tokens)["inflow_source"] == pytest.approx(
        float(torch.stack([inflow[b, at[b]] for b in range(3)]).mean()), rel=1e-5
    )


def test_what_is_measured_of_a_mixed_toy() -> None:
    """For each head, against the weights themselves; four registers come first."""
    config = replace(MIXED, registers=4)
    task, tokens, model = ToyTask.draw(config, 0), evaluation_tokens(config, 0, 3), build_toy(config, 0)
    (view,), _, _ = tapped(model, tokens)
    numbers, rests, source = measures(model, task, tokens), task.rests(tokens), task.source(tokens)
    for head in (0, 1):
        weights = view.weights()[:, head]
        resting, active, on_register = [], [], []
        for b in range(3):
            rows = weights[b, 4:]
            column = int(rows[rests[b]].mean(0).argmax())
            resting.append(float(rows[rests[b]].mean(0)[column]))
            active.append(float(rows[~rests[b]].mean(0)[column]))
            on_register.append(int(weights[b].mean(0).argmax()) < 4)
        inflow = [float(weights[b].mean(0)[4 + source[b]]) for b in range(3)]
        expected = {
            "attention_resting": resting,
            "attention_not_resting": active,
            "sink_on_register": on_register,
            "inflow_source": inflow,
        }
        for name, values in expected.items():
            assert numbers[f"toy/{name}/head{head}"] == pytest.approx(sum(values) / 3, rel=1e-5), name
    best = max((0, 1), key=lambda head: numbers[f"toy/inflow_source/head{head}"])
    assert numbers["toy/mass"] == numbers[f"toy/mass/head{best}"]


def test_a_sequence_in_which_no_token_rests_does_not_count() -> None:
    task, tokens = ToyTask.draw(MIXED, 0), evaluation_tokens(MIXED, 0, 2)
    tokens[0] = 3 * task.direction  # all active
    (view,), _, _ = tapped(build_toy(MIXED, 0), tokens)
    alone = resting_column(view, task, tokens)
    (view,), _, _ = tapped(build_toy(MIXED, 0), tokens[1:])
    assert alone["attention_resting"] == pytest.approx(resting_column(view, task, tokens[1:])["attention_resting"])


def test_both_heads_of_a_mixed_toy_have_a_verdict() -> None:
    shares = {"toy/label_nop/head0": 0.9, "toy/label_broadcast/head1": 0.8, "toy/label_nop/head1": 0.1}
    assert verdicts(shares) == ["nop", "broadcast"]
    assert verdicts({"toy/label_nop": 0.9}) == ["nop"]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"nop": 0.9, "broadcast": 0.1}, "nop"),
        ({"nop": 0.1, "broadcast": 0.6}, "broadcast"),
        ({"nop": 0.4}, "none"),
        ({}, "none"),
    ],
)
def test_the_label_of_a_run_is_the_most_frequent_one(shares: dict[str, float], expected: str) -> None:
    assert verdict({f"toy/label_{name}": value for name, value in shares.items()}) == expected


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"p_nop": 1.0}, "p_nop"),
        ({"task": "broadcast", "p_nop": 0.3}, "p_nop"),
        ({"gamma": 0.1}, "gamma"),
        ({"task": "mixed", "supervise": "update"}, "supervise"),
        ({"task": "mixed", "gamma": 0.1}, "gamma"),
        ({"alpha": 2.0}, "alpha"),
        ({"tokens": 1}, "tokens"),
        ({"registers": -1}, "registers"),
    ],
)
def test_numbers_out_of_range_are_refused(fields: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}"):
        ToyConfig(**fields)  # type: ignore[arg-type]
