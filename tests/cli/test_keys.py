"""The names of keys are frozen in `keys.txt`, since sweeps and dashboards depend on them."""

import re
from pathlib import Path
from typing import Any

import yaml
from running import forked, run

FROZEN = Path(__file__).with_name("keys.txt")
OURS = (
    "task",
    "model",
    "data",
    "diagnostics",
    "stability",
    "wandb",
    "variant",
    "run_dir",
    "sweep",
    "overwrite",
    "seed_everything",
    "ckpt_path",
    "on_checkpoint_failure",
)


def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of all values in nested mappings."""
    paths = []
    for key, value in tree.items():
        paths += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return paths


def test_the_keys_of_fit_are_frozen() -> None:
    config = yaml.safe_load(run("fit", "--print_config").succeeded().out)
    keys = sorted(leaves({name: config[name] for name in OURS}))
    assert keys == FROZEN.read_text().split(), (
        f"the keys of fit changed. A renamed or removed key breaks existing sweeps. If this is intended, "
        f"write these lines to {FROZEN.name}:\n" + "\n".join(keys)
    )


def test_help_has_a_sentence_for_every_key() -> None:
    text = forked("fit", "--help", "all").succeeded().out
    options = re.split(r"\n  (?=-)", text[text.index("\noptions:") :])[1:]
    sentences = {}
    for option in options:
        names, *description = re.split(r"\s{2,}", option.strip(), maxsplit=1)
        sentences[re.findall(r"--(\S+)", names)[-1]] = re.sub(r"\s+", " ", "".join(description)).split(" (type:")[0]
    assert set(FROZEN.read_text().split()) - set(sentences) == set()
    assert sentences["data.image.size"] == "Side of the square image in pixels, or [height, width]."
    assert [key for key, sentence in sentences.items() if not re.match(r"[^(].{5}", sentence)] == []
