"""Metric names in W&B give sections of a readable size, whichever prefix W&B groups by."""

from collections import Counter

import pytest
import torch

import sinkablate as sa
from sinkablate.loggers.panels import MOST_PANELS, panel


@pytest.mark.parametrize(
    ("name", "panel_name"),
    [
        ("lr", "lr"),
        ("val/acc1", "val/acc1"),
        ("sink/adaptive/nop", "sink_adaptive/nop"),
        ("sink/adaptive/first_block/nop", "sink_adaptive_first_block/nop"),
        ("sink/events/block23", "sink_events/block23"),
        ("sink/events/block24", "sink_events_from_block24/block24"),
        ("norm/patch_p99/block50", "norm_patch_p99_from_block48/block50"),
    ],
)
def test_a_name_has_one_slash(name: str, panel_name: str) -> None:
    assert panel(name) == panel_name


@pytest.mark.parametrize("options", [{"gate": "headwise", "registers": 4}, {"sink": "zero", "gate": "elementwise"}])
def test_no_section_of_a_deep_model_is_too_large(options: dict[str, object]) -> None:
    model = sa.create_model("vit_mini", depth=40, embed_dim=16, num_heads=2, **options)
    names = list(sa.measure(model, torch.randn(2, 1, 28, 28)).scalars)
    panel_names = [panel(name) for name in names]
    assert len(set(panel_names)) == len(names) > 200
    sections = Counter(name.split("/")[0] for name in panel_names)
    assert sections["sink"] > 10
    assert max(sections.values()) <= MOST_PANELS, sections
    assert sections == Counter(name.rpartition("/")[0] for name in panel_names), (
        "the first and the last prefix give the same groups"
    )
