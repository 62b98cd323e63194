"""What `diagnose` prints about the payload constancy of broadcast heads."""

import pytest

from sinkablate.config import ThresholdConfig
from sinkablate.diagnose.terminal import print_summary
from sinkablate.diagnostics.rules import VERDICTS


@pytest.mark.parametrize(
    ("images", "constancy", "expected"),
    [
        (64, 0.039, "0.039 (independent payloads of 64 images have 0.016 by chance; 1: a constant vector"),
        (4, 0.313, "0.313 (independent payloads of 4 images have 0.250 by chance)"),
        (1, None, ""),
    ],
)
def test_payload_constancy_is_printed_next_to_its_chance(
    images: int, constancy: float | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {label.name.lower(): 1.0 for label in VERDICTS}
    counts = {"causal": {"events": 1.0, **labels, "by_token_type": {}, "broadcast_payload_constancy": constancy}}
    summary = {"model": "a", "headline": "", "blocks": [1], "counts": counts, "first_block": {}, "label_survival": {}}
    speed = {"rebuild_error": 0.0, "images_per_second": 1.0, "peak_memory_gib": 1.0}
    print_summary(summary | speed | {"image_count": images, "skipped": []}, ThresholdConfig(), "out")
    out = capsys.readouterr().out
    assert f"payload constancy of its broadcast heads: {expected}" in out or not expected
    assert ("payload constancy of its" in out) == bool(expected)
    assert ("a constant vector" in out) == (images >= 10)
