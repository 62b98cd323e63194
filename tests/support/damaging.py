"""Ways in which the files of a run or a diagnosis can be damaged, by kind of file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

Break = Callable[[Path], Any]


def cut(share: float) -> Break:
    return lambda path: path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * share)])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3 :: 97] = bytes(255 - byte for byte in data[len(data) // 3 :: 97])
    path.write_bytes(bytes(data))


ANY: dict[str, Break] = {
    "empty": lambda path: path.write_bytes(b""),
    "a tenth": cut(0.1),
    "half": cut(0.5),
    "all but the end": cut(0.97),
    "flipped bytes": flipped,
    "a folder": folder,
    "something else": lambda path: path.write_bytes(bytes(range(256))),
}


def column(name: str, value: Any) -> Break:
    return lambda path: pl.read_parquet(path).with_columns(pl.lit(value).alias(name)).write_parquet(path)


def rows(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    return lambda path: change(pl.read_parquet(path)).write_parquet(path)


TABLE: dict[str, Break] = {
    **{f"{name} is text": column(name, "x") for name in ("block", "step", "median_mass", "causal_nop")},
    **{f"{name} is a list": column(name, [1]) for name in ("head", "causal_frequency")},
    "blocks are NaN": column("block", float("nan")),
    "blocks are null": column("block", None),
    "blocks are huge": column("block", 2**62),
    "heads are negative": column("head", -1),
    "counts are NaN": column("causal_nop", float("nan")),
    "no images": column("images", 0),
    "another token type": column("token_type", "x"),
    "token types are numbers": column("token_type", 1),
    "no column": rows(lambda table: table.drop("causal_other")),
    "no rows": rows(pl.DataFrame.clear),
    "a row is missing": rows(lambda table: table.head(-1)),
    "twice": rows(lambda table: pl.concat([table, table])),
}


def member(key: str, value: Any) -> Break:
    def change(path: Path) -> None:
        tree = yaml.safe_load(path.read_text())
        *parents, last = key.split(">")
        group = tree
        for name in parents:
            group = group[name]
        group[last] = value
        path.write_text(json.dumps(tree) if path.suffix == ".json" else yaml.safe_dump(tree))

    return change


def text(content: str) -> Break:
    return lambda path: path.write_text(content)


JSON: dict[str, Break] = {
    "deep": text("[" * 200_000),
    "deep groups": text('{"a":' * 5000 + "1" + "}" * 5000),
    "a list": text("[]"),
    "a huge number": text('{"a": ' + "9" * 5000 + "}"),
    "UTF-16": lambda path: path.write_bytes("{}".encode("utf-16")),
    "a metric is text": member("val/acc1", "high"),
    "a metric is a list": member("val/acc1", [1]),
    "a metric is infinite": member("val/acc1", float("inf")),
    "stability is text": member("stability/loss_spikes", "x"),
    "counts are text": member("counts", "x"),
    "counts lack a label": member("counts>causal>by_token_type>nop", None),
    "a count is text": member("counts>causal>by_token_type>nop", {"cls": "x"}),
}
CONFIG: dict[str, Break] = {
    "a threshold is text": member("diagnostics>thresholds>nop_max", "x"),
    "a list": text("- 1"),
    "a threshold is NaN": member("diagnostics>thresholds>rank_max", float("nan")),
    "deep": text("a: " + "[" * 100_000),
    "a tag": text("a: !!python/object/apply:os.getcwd []"),
    "it holds itself": text("a: &a [*a]"),
    "billions of values": text(
        "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    ),
    "Latin": lambda path: path.write_bytes("variant: é".encode("latin1")),
    "a NUL": text("a: \0"),
}
CSV: dict[str, Break] = {
    "a step is text": lambda path: path.write_text(path.read_text() + "x,1\n"),
    "a step is not an integer": lambda path: path.write_text(path.read_text() + "1.5,1\n"),
    "semicolons": lambda path: path.write_text(path.read_text().replace(",", ";")),
    "no step": lambda path: path.write_text(path.read_text().replace("step,", "stp,", 1)),
    "text among numbers": lambda path: path.write_text(path.read_text() + "7,x\n"),
}


def array(name: str, value: Any) -> Break:
    def change(path: Path) -> None:
        with np.load(path) as stored:
            content = dict(stored) | {name: value}
        with path.open("wb") as file:
            np.savez(file, **content)

    return change


ARRAYS: dict[str, Break] = {
    "mass belongs to other heads": array("mass", np.zeros((2, 9, 9), np.float32)),
    "mass is text": array("mass", ["x"]),
    "mass is flat": array("mass", np.zeros(3, np.float32)),
    "names are numbers": array("image_names", np.arange(2)),
    "names are objects": array("image_names", np.array([{}], dtype=object)),
    "several numbers of registers": array("num_register_tokens", np.arange(3)),
}
DIAGNOSIS: dict[str, Break] = {
    "a threshold is text": member("thresholds>nop_max", "x"),
    "thresholds are text": member("thresholds", "x"),
    "the step is text": member("step", "x"),
    "the tokens are text": member("num_tokens", "x"),
}
