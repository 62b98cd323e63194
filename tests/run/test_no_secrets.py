"""Nothing about a login is written into a run or a diagnosis; what was decided about weights is."""

from pathlib import Path

import pytest
import timm
import torch
from running import fit, run, summary

import sinkablate.vit.timm_models  # noqa: F401  # registers vit_mini

SECRET = "hf_aVerySecretTokenOfSomebody"


def test_no_token_is_written_and_the_reading_of_weights_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    state = timm.create_model("vit_mini", depth=1).half().state_dict()
    torch.save({"teacher": {f"module.{name}": value for name, value in state.items()}}, path := tmp_path / "t.pth")
    run_dir, out = tmp_path / "run", tmp_path / "out"
    outcomes = [
        fit(run_dir, "--model.backbone.checkpoint", path, "--model.backbone.depth", "1").succeeded(),
        run("diagnose", "--run", run_dir, "--out", out, "--limit", "2", "--device", "cpu").succeeded(),
    ]
    written = [file for folder in (run_dir, out) for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 10
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]
    assert not any(SECRET in outcome.out + outcome.err for outcome in outcomes)
    loading = summary(run_dir)["loading"]
    assert (loading["key"], loading["prefix"], loading["dtypes"]) == ("teacher", "module.", ["float16"])
    assert "the prefix module. was removed from the names of the weights" in outcomes[0].out
    assert "the weights are stored in float16 and used in float32" in outcomes[0].out
