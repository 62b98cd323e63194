"""One cell of a sweep: what identifies it and what it is called. Standard library only: `fit` asks here too."""

import hashlib
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

from sinkablate.errors import UserError
from sinkablate.files.shipped import checkout_path

CONFIG, SEED, SWEEP = "config", "seed_everything", "sweep"
LAUNCH = (SWEEP, "run_dir", "ckpt_path", "overwrite", "print_config")
"""Keys of `fit` that whoever starts a cell sets."""
WHERE = (
    *LAUNCH,
    "wandb.mode",
    "wandb.project",
    "wandb.entity",
    "wandb.group",
    "wandb.id",
    "wandb.tags",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "data.num_workers",
)
"""Keys of `fit` that say where a run is computed and recorded, not what it is."""
LONGEST = 100
"""Letters in the name of a cell: W&B takes 128 for a run, with the model in front and the seed behind."""


def arguments(words: Sequence[str]) -> list[tuple[str, str]]:
    """Command-line words of `fit` as (key, value), in their order; `--key value`, `--key=value` and a bare `--key`."""
    found: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("--") or word == "-c":
            key, _, value = word.lstrip("-").partition("=")
            found.append((CONFIG if key == "c" else key, value if "=" in word else "true"))
        elif found:
            found[-1] = (found[-1][0], word)
    return found


def configs_first(words: Sequence[str]) -> list[str]:
    """The same words of `fit` with all configs in front, so that every other key overrides them.

    W&B's agents append a swept config to the command, and the identity of a cell knows no order of its keys.
    """
    configs: list[str] = []
    others: list[str] = []
    group = others
    for word in words:
        if word.startswith("--") or word == "-c":
            group = configs if word.partition("=")[0] in (f"--{CONFIG}", "-c") else others
        group.append(word)
    return configs + others


def require_sweep_name(name: object, key: str) -> str:
    """The name of a sweep, which can name a directory.

    Raises:
        UserError: It is not a word of at most 100 characters.
    """
    if not isinstance(name, str) or re.fullmatch(r"\w[\w-]{0,99}", name) is None:
        raise UserError(
            f"{key}={reprlib.repr(name)}: a sweep names a directory: a word of at most 100 letters, "
            "digits, - and _ is needed"
        )
    return name


def cell_id(words: Sequence[str]) -> str:
    """Identity of a run in its sweep: a hash of the sorted arguments that say what it is.

    The order of dotted keys does not matter, and the last of a key counts, as in `fit`; configs are one argument, in
    their order, because later ones win.
    """
    given = [(key, value) for key, value in arguments(words) if key not in WHERE]
    configs = ",".join(checkout_path(value) for key, value in given if key == CONFIG)
    last = {key: value for key, value in given if key != CONFIG}
    text = "\n".join(sorted([f"{CONFIG}={configs}", *(f"{key}={value}" for key, value in last.items())]))
    return _hash(text)[:12]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted keys by the shortest ending that tells them apart; `seed_everything` is `seed`."""
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        names[key] = next(
            ending for ending in endings if sum(other == ending or other.endswith(f".{ending}") for other in keys) == 1
        )
    return names | ({SEED: "seed"} if SEED in names else {})


def config_names(configs: Sequence[str]) -> dict[str, str]:
    """What tables call configs: the names of their files, with as many folders as it takes to tell them apart."""
    for count in range(1, max(len(PurePath(config).parts) for config in configs) + 1):
        names = {config: "/".join(PurePath(config).with_suffix("").parts[-count:]) for config in configs}
        if len(set(names.values())) == len(names):
            return names
    return dict(zip(configs, configs, strict=True))


def variant_name(words: Sequence[str], variant: str) -> str:
    """What a cell is called in run names: the variant of its configs and the `model` keys that the sweep sets."""
    given = dict(arguments(words))
    model = [key for key in given if key.startswith("model.")]
    names = short_names(model)
    parts = [f"{names[key]}={_slug(given[key])}" for key in sorted(model)]
    name = "+".join(([] if variant == "baseline" and parts else [variant]) + parts)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_hash(name)[:8]}"


def _slug(value: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", value).strip("_") or "none"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        words: Arguments of `fit` that make it, without those that say where.
        factors: Swept key to value, as words.
        config_names: What tables call the configs of the sweep; by default the names of their files.
        label: What a person calls it: the values of its factors, seed last.
    """

    words: tuple[str, ...]
    factors: dict[str, str]
    config_names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Name of its run directory."""
        return cell_id(self.words)

    @property
    def tidy(self) -> dict[str, str]:
        """Factors under their short names, configs as the names of their files."""
        names = short_names(list(self.factors))
        return {
            names[key]: self.config_names.get(value, PurePath(value).stem) if key == CONFIG else value
            for key, value in self.factors.items()
        }

    @property
    def label(self) -> str:
        """The values of its factors, seed last."""
        tidy = self.tidy
        seed = tidy.pop("seed", None)
        tidy = {name: value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…" for name, value in tidy.items()}
        parts = [value if name == CONFIG else f"{name}={value}" for name, value in tidy.items()]
        return " ".join([*parts, *([f"s{seed}"] if seed is not None else [])]) or "the only cell"
