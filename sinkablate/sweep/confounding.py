"""Whether the cells of a sweep differ in more than what its parameters name."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from sinkablate.config import BackboneConfig, CommonModeConfig, ToyConfig
from sinkablate.config.checks import Needs, idle_choice
from sinkablate.run.cells import CONFIG, PLACEMENT_KEYS, Cell

SETTINGS = ("model.", "data.", "trainer.")
"""Prefixes of the keys that determine a result. Names, logging and measurements do not."""
MECHANISMS: Mapping[str, type[Any]] = {
    "model.backbone.": BackboneConfig,
    "model.common_mode.": CommonModeConfig,
    "model.toy.": ToyConfig,
}
"""Prefixes of the keys that a variant, which a config names, may set together -> the config class of these keys."""
TASKS = ("task", "model.toy.task")
"""Keys whose values are never compared with one another, so that each value has a design of its own."""


def _needs(config: type[Any], prefix: str) -> Iterator[tuple[str, tuple[str, Collection[Any] | None]]]:
    """Yield the `NEEDS` of a config class, and of those nested in it, with full keys."""
    for name, (axis, accepted) in getattr(config, "NEEDS", {}).items():
        yield f"{prefix}{name}", (f"{prefix}{axis}", accepted)
    for field in fields(config):
        if isinstance(field.type, type) and is_dataclass(field.type):
            yield from _needs(field.type, f"{prefix}{field.name}.")


DETAILS: Needs = {
    key: needed
    for prefix, config in MECHANISMS.items()
    for key, needed in _needs(config, prefix)
    if key != "model.common_mode.before_gate"  # it needs a gate, too, so cells without one have no value of it
}
"""Key that describes the type of a mechanism -> the key that decides whether it has an effect, and by which values."""

Row = tuple[Cell, dict[str, Any]]


def confounded(rows: Sequence[Row]) -> str | None:
    """Describe the first setting that differs between cells only together with other keys; None if there is none.

    Every swept parameter is a named factor, and a config is the name of a variant: it may set several keys of its
    mechanism. Two kinds of keys are not named by it: settings of training, such as a learning rate, and the type of
    a mechanism that several cells have, such as the position embedding of registers. Where such a key has several
    values, cells that differ in nothing else must connect them.

    Args:
        rows: Cells with all their keys and values.
    """
    designs: dict[tuple[Any, ...], list[Row]] = {}
    for cell, config in rows:
        designs.setdefault(tuple(config.get(key) for key in TASKS), []).append((cell, _active(config)))
    return next(filter(None, map(_confounded_design, designs.values())), None)


def _active(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that determine the result of a cell; a detail of a mechanism that the cell lacks is None."""
    kept = {key: value for key, value in config.items() if key.startswith(SETTINGS) and key not in PLACEMENT_KEYS}
    return {key: None if idle_choice(DETAILS, key, kept) else value for key, value in kept.items()}


def _confounded_design(rows: Sequence[Row]) -> str | None:
    """Describe the first such setting among cells of one task."""
    keys = dict.fromkeys(key for _, config in rows for key in config)
    varied = [key for key in keys if len({repr(config.get(key)) for _, config in rows}) > 1]
    for key in varied:
        if key in DETAILS or not key.startswith(tuple(MECHANISMS)):
            unit = [name for name in varied if name == key or (key in DETAILS and _axis(name) == _axis(key))]
            with_it = [row for row in rows if key not in DETAILS or row[1].get(key) is not None]
            pair = _unconnected(with_it, unit, varied)
            if pair is not None:
                return _described(pair, unit, varied)
    return None


def _axis(key: str) -> str | None:
    """Return the key of the mechanism that a key is a detail of; None if it is not a detail."""
    if key not in DETAILS:
        return None
    axis = DETAILS[key][0]
    return _axis(axis) or axis


def _described(pair: tuple[Row, Row], unit: Sequence[str], varied: Sequence[str]) -> str:
    """Return the keys in which two cells differ, and what to do."""
    (first, one), (second, other) = pair
    differing = [name for name in varied if one.get(name) != other.get(name)]
    return (
        f"{_name(first)} and {_name(second)} differ in {_listed(differing)}, and no two cells differ in "
        f"{_listed(unit)} alone, so the effects cannot be separated; use one value in all cells, or sweep it as a "
        "parameter of its own, or add --allow_confounded"
    )


def _listed(keys: Sequence[str]) -> str:
    """Return keys as a list in words."""
    return " and ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))


def _unconnected(rows: Sequence[Row], unit: Sequence[str], varied: Sequence[str]) -> tuple[Row, Row] | None:
    """Return the most similar two cells whose values of `unit` no cells connect that differ in these keys alone."""

    def values(row: Row, keys: Sequence[str]) -> str:
        return repr([row[1].get(key) for key in keys])

    others = [key for key in varied if key not in unit]
    groups = {value: {value} for value in (values(row, unit) for row in rows)}
    alike: dict[str, str] = {}
    for row in rows:
        value = values(row, unit)
        merged = groups[value] | groups[alike.setdefault(values(row, others), value)]
        groups |= dict.fromkeys(merged, merged)
    pairs = [
        (one, other)
        for index, one in enumerate(rows)
        for other in rows[index + 1 :]
        if values(other, unit) not in groups[values(one, unit)]
    ]
    return min(
        pairs, key=lambda pair: sum(pair[0][1].get(name) != pair[1][1].get(name) for name in varied), default=None
    )


def _name(cell: Cell) -> str:
    """Return the name of a cell without its seed."""
    factors = {name: value for name, value in cell.short_factors.items() if name != "seed"}
    return ", ".join(value if name == CONFIG else f"{name}={value}" for name, value in factors.items())
