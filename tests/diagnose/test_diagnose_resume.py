"""An interrupted diagnosis resumes after its last finished batch and ends with the same numbers."""

from pathlib import Path

import pytest
from diagnosing import FILES, SMALL, diagnose, photographs, same_results
from running import killed, summary, tree


def test_a_killed_diagnosis_resumes_after_its_last_batch(tmp_path: Path) -> None:
    out, chosen = tmp_path / "out", ("--batch_size", "2")
    killed("diagnose", *SMALL, "--images", "builtin", *chosen, "--out", out, after=out / "parts", pattern="*.npz")
    kept = tree(out / "parts")
    assert kept, "killed before the first batch, or after the last"
    assert not (out / "summary.json").exists()
    diagnose(out, "builtin", *chosen).succeeded()
    assert set(tree(out)) == FILES
    diagnose(tmp_path / "whole", "builtin", *chosen).succeeded()
    same_results(tmp_path / "whole", out, rtol=1e-5)  # two processes may round differently


@pytest.mark.heavy
def test_a_diagnosis_stopped_by_a_broken_image_resumes_once_it_is_repaired(tmp_path: Path) -> None:
    root, out, chosen = tmp_path / "photographs", tmp_path / "out", ("--batch_size", "2", "--strict", "true")
    broken = photographs(root)[5]
    diagnose(tmp_path / "whole", root, *chosen).succeeded()
    intact = broken.read_bytes()
    broken.write_bytes(intact[:100])
    stopped = diagnose(out, root, *chosen)
    assert stopped.code == 2
    assert broken.name in stopped.err
    assert sorted(tree(out / "parts")) == ["000000000-000000002.npz", "000000002-000000004.npz"]
    broken.write_bytes(intact)
    diagnose(out, root, *chosen).succeeded()
    same_results(tmp_path / "whole", out)


def test_a_half_written_batch_is_measured_again(tmp_path: Path) -> None:
    root, out = tmp_path / "photographs", tmp_path / "out"
    photographs(root)[8].write_bytes(b"no picture")
    assert diagnose(out, root, "--batch_size", "4", "--strict", "true").code == 2
    (out / "parts" / ".000000008-000000009.npz.partial").write_bytes(b"half a file")
    diagnose(out, root, "--batch_size", "4").succeeded()
    content = summary(out)
    assert (content["image_count"], len(content["skipped"])) == (8, 1)
    assert set(tree(out)) == FILES


@pytest.mark.heavy
def test_overwrite_starts_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    diagnose(out, "builtin", "--limit", "3").succeeded()
    diagnose(out, "builtin", "--limit", "2", "--overwrite", "true").succeeded()
    assert summary(out)["image_count"] == 2
    assert set(tree(out)) == FILES
