"""Identity and name of one cell of a sweep, that is, one run, from its command-line arguments.

`fit --sweep` and the command `sweep` both derive the run directory and the names from here. Standard library only.
"""

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
LAUNCH_KEYS = (SWEEP, "run_dir", "ckpt_path", "overwrite", "print_config")
"""Keys of `fit` that are set by the process that starts a cell."""
PLACEMENT_KEYS = (
    *LAUNCH_KEYS,
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
    "diagnostics.memory_mib",
    "model.backbone.attention.kernel",
    "model.toy.attention.kernel",
)
"""Keys of `fit` that determine where and how a run is computed and recorded; they are not part of its identity."""
MAX_NAME_LENGTH = 100
"""Maximum length of the name of a cell; W&B allows 128 characters for model, cell and seed together."""


def parse_words(words: Sequence[str]) -> list[tuple[str, str]]:
    """Parse command-line words of `fit` into (key, value) pairs, in order.

    `--key value`, `--key=value` and a bare `--key` (value `true`) are recognized.
    """
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("--") or word == "-c":
            key, _, value = word.lstrip("-").partition("=")
            pairs.append((CONFIG if key == "c" else key, value if "=" in word else "true"))
        elif pairs:
            pairs[-1] = (pairs[-1][0], word)
    return pairs


def configs_first(words: Sequence[str]) -> list[str]:
    """Move all configs to the front, so that every other key overrides them.

    W&B's agents append a swept config to the command, and the identity of a cell does not depend on the order of its
    keys.
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
    """Return the name of a sweep if it can be the name of a directory.

    Args:
        name: The name.
        key: The configuration key of the name, for messages.

    Raises:
        UserError: The name is not a word of at most 100 characters.
    """
    if not isinstance(name, str) or re.fullmatch(r"\w[\w-]{0,99}", name) is None:
        raise UserError(
            f"{key}={reprlib.repr(name)}: not a valid name for a sweep; use at most 100 letters, digits, - and _, "
            "because it names a directory"
        )
    return name


def cell_id(words: Sequence[str]) -> str:
    """Identity of a run in its sweep: a hash of its sorted arguments without the placement keys.

    The order of dotted keys does not matter, and the last value of a key counts, as in `fit`. The configs together are
    one argument, in order, because later configs override earlier ones.
    """
    given = [(key, value) for key, value in parse_words(words) if key not in PLACEMENT_KEYS]
    configs = ",".join(checkout_path(value) for key, value in given if key == CONFIG)
    last = {key: value for key, value in given if key != CONFIG}
    text = "\n".join(sorted([f"{CONFIG}={configs}", *(f"{key}={value}" for key, value in last.items())]))
    return _hash(text)[:12]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Map dotted keys to their shortest distinct endings; `seed_everything` becomes `seed`."""
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        names[key] = next(
            ending for ending in endings if sum(other == ending or other.endswith(f".{ending}") for other in keys) == 1
        )
    return names | ({SEED: "seed"} if SEED in names else {})


def config_names(configs: Sequence[str]) -> dict[str, str]:
    """Map configs to their names in tables: the file name, with as many folders as needed to make it unique."""
    for count in range(1, max(len(PurePath(config).parts) for config in configs) + 1):
        names = {config: "/".join(PurePath(config).with_suffix("").parts[-count:]) for config in configs}
        if len(set(names.values())) == len(names):
            return names
    return dict(zip(configs, configs, strict=True))


def variant_name(words: Sequence[str], variant: str) -> str:
    """Name of a cell in run names: the variant of its configs and the `model` keys that the sweep sets."""
    given = dict(parse_words(words))
    model = [key for key in given if key.startswith("model.")]
    names = short_names(model)
    parts = [f"{names[key]}={_slug(given[key])}" for key in sorted(model)]
    name = "+".join(([] if variant == "baseline" and parts else [variant]) + parts)
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 9]}-{_hash(name)[:8]}"


def _slug(value: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", value).strip("_") or "none"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        words: Arguments of `fit` for this run, without the placement keys.
        factors: Values of the swept keys, as strings.
        config_names: Names of the sweep's configs in tables; by default their file names.
        label: Readable name: the values of the factors, seed last.
    """

    words: tuple[str, ...]
    factors: dict[str, str]
    config_names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Name of the run directory."""
        return cell_id(self.words)

    @property
    def short_factors(self) -> dict[str, str]:
        """Factors by their short names, configs by their names in tables."""
        names = short_names(list(self.factors))
        return {
            names[key]: self.config_names.get(value, PurePath(value).stem) if key == CONFIG else value
            for key, value in self.factors.items()
        }

    @property
    def label(self) -> str:
        """The values of its factors, seed last."""
        factors = self.short_factors
        seed = factors.pop("seed", None)
        factors = {
            name: value if len(value) <= MAX_NAME_LENGTH else f"{value[: MAX_NAME_LENGTH - 1]}…"
            for name, value in factors.items()
        }
        parts = [value if name == CONFIG else f"{name}={value}" for name, value in factors.items()]
        return " ".join([*parts, *([f"s{seed}"] if seed is not None else [])]) or "the only cell"
