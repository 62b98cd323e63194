"""HF_HUB_OFFLINE=1 in the environment, which huggingface_hub reads when it is imported."""

from pathlib import Path

import pytest
from running import assert_refused, spawn


@pytest.mark.heavy
@pytest.mark.parametrize("option", ["--hf=nobody/absent", "--backbone.name=hf-hub:nobody/absent"])
def test_a_model_that_is_not_in_the_cache_is_refused_in_one_line(option: str, tmp_path: Path) -> None:
    words = ("diagnose", option, "--images", "builtin", "--out", tmp_path / "out")
    outcome = spawn(*words, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "cache"))
    assert_refused(outcome, "nobody/absent: ", "no network and not in the cache of the Hugging Face hub")
    assert not (tmp_path / "out").exists()
