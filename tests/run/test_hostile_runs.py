"""Reading a run that somebody else made executes nothing, and writes nothing outside it."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from reporting import report
from running import Outcome, run, tree

from sinkablate.run.trust import PATHS, find_hazards

READERS: dict[str, Callable[[Path, Path], list[str | Path]]] = {
    "validate": lambda run, out: ["validate", "--config", run / "config.yaml"],
    "test": lambda run, out: ["test", "--config", run / "config.yaml"],
    "predict": lambda run, out: ["predict", "--config", run / "config.yaml"],
    "diagnose": lambda run, out: ["diagnose", "--run", run, "--out", out],
    "intervene": lambda run, out: ["intervene", "--run", run, "--out", out],
}
"""Every command that runs the model of a run; `report` does so for its attention maps."""


class Hostile:
    """A copy of a run with a changeable configuration, and the file that its commands and classes would create."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root, self.path, self.executed, self.out = root, root / "run", root / "executed", root / "out"
        shutil.copytree(source, self.path, symlinks=True)
        (root / "hostile_module.py").write_text(
            f"open({str(self.executed)!r}, 'w')\nfrom lightning.pytorch.callbacks import Callback\n\n\n"
            "class Hostile(Callback):\n    pass\n"
        )
        (root / "hostile.yaml").write_text("callbacks:\n- class_path: hostile_module.Hostile\n")
        self.pipe = f"pipe:touch {self.executed}; cat nothing"

    def configure(self, values: dict[str, Any]) -> None:
        """Set dotted keys; the first line, by which commands recognize a run, is kept."""
        path = self.path / "config.yaml"
        header = path.read_text().splitlines(keepends=True)[0]
        assert header.startswith("#")
        tree = yaml.safe_load(path.read_text()) | {"run_dir": str(self.path)}
        for key, value in values.items():
            *parents, last = key.split(".")
            group = tree
            for name in parents:
                group = group[name]
            group[last] = value
        path.write_text(header + yaml.safe_dump(tree))

    def read(self, command: str, *more: str) -> Outcome:
        """Run a command on the copy."""
        return run(*READERS[command](self.path, self.out), *more)


@pytest.fixture
def hostile(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Hostile(tmp_path, finished)


def shards(pipe: str, split: str = "val") -> dict[str, Any]:
    """Keys of shards that a command generates."""
    return {
        "data.source.format": "shards",
        "data.source.reader": "stream",
        "data.source.train": "nowhere",
        f"data.source.{split}": pipe,
    }


def refused(outcome: Outcome, *names: str) -> None:
    """Check that a command failed with one line that contains names."""
    assert outcome.code == 2
    *notes, line = outcome.err.strip().splitlines()
    assert line.startswith("error: ")
    assert all(other.startswith("weights") for other in notes), outcome.err
    for name in names:
        assert name in line


@pytest.mark.parametrize("verb", READERS)
def test_commands_that_read_a_run_do_not_run_its_pipes(verb: str, hostile: Hostile) -> None:
    hostile.configure(shards(hostile.pipe))
    before = tree(hostile.path)
    refused(hostile.read(verb), "config.yaml", "data.source.val=pipe:touch", "--trust")
    assert not hostile.executed.exists()
    assert not hostile.out.exists()
    assert tree(hostile.path) == before


@pytest.mark.parametrize("verb", READERS)
def test_with_trust_the_pipes_are_run(verb: str, hostile: Hostile) -> None:
    """The output of the pipe is not a manifest, which is the error that follows."""
    hostile.configure(shards(f"pipe:touch {hostile.executed}; cat {hostile.path}/0.tar"))
    refused(hostile.read(verb, "--trust"), "data.source.", "manifest")
    assert hostile.executed.exists() or verb in ("validate", "test", "predict")  # these open the training shards first


def test_with_trust_the_pipes_are_run_for_the_maps_of_a_report(hostile: Hostile) -> None:
    hostile.configure(shards(f"pipe:touch {hostile.executed}; cat {hostile.path}/0.tar"))
    outcome = report(hostile.out, hostile.path, "--trust").succeeded()
    assert "No attention maps of run: data.source.val" in outcome.err
    assert hostile.executed.exists()


CLASS = {"class_path": "hostile_module.Hostile"}
EXECUTED: dict[str, dict[str, Any]] = {
    "class of a callback": {"trainer.callbacks": [CLASS]},
    "name of a callback": {"trainer.callbacks": "hostile_module.Hostile"},
    "plugin": {"trainer.plugins": [CLASS]},
    "logger": {"trainer.logger": CLASS},
    "strategy": {"trainer.strategy": "hostile_module.Hostile"},
    "profiler": {"trainer.profiler": CLASS},
    "another file": {"trainer": "{root}/hostile.yaml"},
    "another file for a group of the model": {"model.backbone": "{root}/hostile.yaml"},
    "a file next to it": {"config": "{root}/hostile.yaml"},
    "a class in place of a name": {"model.backbone.name": CLASS},
    "trust given by the file itself": {"trust": True, "trainer.callbacks": [CLASS]},
    "pickles": {"weights_only": False},
    "a pipe in braces": shards("{a,p}ipe:touch {root}/executed"),
    "a pipe spelled out": shards("{n..p}ipe:touch {root}/executed"),
    "a pipe in place of a path": shards("file:pipe:touch {root}/executed #a.tar"),
    "a pipe in place of a path of a URL": shards("file://pipe:touch {root}/executed #a.tar"),
    "a variable sent to a server": shards("https://localhost:9/${oc.env:HOME}/a.tar"),
    "a variable and a server put together": shards("${data.source.test}${oc.env:HOME}/a.tar"),
    "a pipe after a file": shards("0.tar::pipe:touch {root}/executed"),
    "more shards than can be checked": shards("{a..z}" * 4 + "pipe:touch {root}/executed"),
    "a secret in an address": shards("https://example.invalid/${oc.env:HOME}.tar"),
}


@pytest.mark.parametrize("name", EXECUTED)
def test_a_configuration_that_executes_something_is_refused_before_it_is_parsed(name: str, hostile: Hostile) -> None:
    hostile.configure(
        {
            key: value.replace("{root}", str(hostile.root)) if isinstance(value, str) else value
            for key, value in EXECUTED[name].items()
        }
    )
    before = tree(hostile.path)
    refused(hostile.read("validate"), "config.yaml", next(reversed(EXECUTED[name])), "--trust")
    assert not hostile.executed.exists()
    assert tree(hostile.path) == before


def test_a_pipe_composed_of_several_keys_is_refused(hostile: Hostile) -> None:
    hostile.configure({"variant": "p", **shards("${validate.variant}ipe:touch " + str(hostile.executed))})
    refused(hostile.read("validate"))
    assert not hostile.executed.exists()


def test_keys_on_the_command_line_need_no_trust(hostile: Hostile) -> None:
    refused(hostile.read("validate", *(f"--{key}={value}" for key, value in shards(hostile.pipe).items())), "manifest")


OUTSIDE = {
    "sweep": "../../outside",
    "checkpoint.filename": "../../outside",
    "variant": "../outside",
    "checkpoint.dirpath": "/tmp/outside",
    "trainer.default_root_dir": "/tmp/outside",
}


@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize("key", OUTSIDE)
def test_no_name_leads_outside_the_run(key: str, verb: str, hostile: Hostile) -> None:
    hostile.configure({key: OUTSIDE[key]})
    refused(run(verb, "--config", hostile.path / "config.yaml", "--wandb.mode", "disabled"), key)


def test_links_in_a_run_are_replaced_and_not_written_through(hostile: Hostile) -> None:
    hostile.configure({})
    target = hostile.root / "target"
    target.write_text("unchanged")
    for name in ("validate.json", "validate.partial", "predictions.parquet", ".predictions.parquet.partial"):
        (hostile.path / name).unlink(missing_ok=True)
        (hostile.path / name).symlink_to(target)
    hostile.read("validate").succeeded()
    hostile.read("predict", "--trainer.limit_predict_batches", "1").succeeded()
    assert target.read_text() == "unchanged"
    assert not (hostile.path / "predictions.parquet").is_symlink()


def test_a_report_omits_the_maps_and_escapes_names(hostile: Hostile) -> None:
    name = "<script>alert(1)</script> | [x](javascript:y) \x1b]0;title\x07\n% \\input{z}"
    hostile.configure({"variant": name, **shards(hostile.pipe)})
    outcome = report(hostile.out, hostile.path).succeeded()
    assert "No attention maps of run: " in outcome.err
    assert "--trust" in outcome.err
    assert not hostile.executed.exists()
    assert "\x1b" not in outcome.out + outcome.err
    for path in hostile.out.glob("tables/*.md"):
        assert "<script" not in path.read_text().replace(r"\<script", "")
        assert "](" not in path.read_text()
    for path in hostile.out.glob("tables/*.tex"):
        assert "\\input" not in path.read_text()
    page = (hostile.out / "index.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page


def test_the_configuration_of_an_ordinary_run_executes_nothing(finished: Path) -> None:
    assert find_hazards(yaml.safe_load((finished / "config.yaml").read_text())) == []


@pytest.mark.parametrize("task", ["classify", "lejepa", "toy"])
def test_every_group_that_can_be_a_file_is_known(task: str) -> None:
    from sinkablate.cli.lightning import Cli

    class Groups(Cli):
        """Stops after the parser is built."""

        def parse_arguments(self, parser: Any, args: Any) -> None:
            """Keep its groups."""
            actions = self._parser(self.command)._actions
            self.groups = {action.dest for action in actions if type(action).__name__ == "_ActionConfigLoad"}
            raise StopIteration

        def __init__(self) -> None:
            with contextlib.suppress(StopIteration):
                super().__init__("validate", ["--task", task])

    assert Groups().groups <= PATHS
    assert "model.backbone" in Groups().groups or task == "toy"
