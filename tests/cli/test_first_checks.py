"""What is wrong with a command line is told before anything heavy is imported, with the nearest name that exists."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import run

from sinkablate.cli.lightning import Cli
from sinkablate.cli.plan import PlanCli
from sinkablate.config.keys import GROUPS, MOST_USED, first_names, overview


def keys(command: str, task: str) -> set[str]:
    """Every key that the parser of a command knows."""
    names: set[str] = set()

    class Stopping(PlanCli if command == "plan" else Cli):  # type: ignore[misc]
        def parse_arguments(self, parser: Any, args: Any) -> None:
            names.update(action.dest for action in self._parser(self.command)._actions)
            raise SystemExit

    with pytest.raises(SystemExit):
        Stopping("fit" if command == "plan" else command, ["--task", task])
    return names


@pytest.mark.parametrize("command", ["fit", "validate", "predict", "plan"])
def test_the_first_checks_know_the_keys_that_the_parser_knows(command: str) -> None:
    assert {name.partition(".")[0] for name in keys(command, "classify")} == first_names(command)


def test_the_help_lists_every_group_and_no_other() -> None:
    tasks = {task: keys("fit", task) for task in ("classify", "lejepa", "toy")}
    known = set().union(*tasks.values())
    assert set(GROUPS) <= known
    assert {key.split()[0] for key in MOST_USED} <= known
    for task, names in tasks.items():
        for name in names:
            assert (
                "." not in name
                or name.rpartition(".")[0] in GROUPS
                or name.endswith(".help")
                or name.startswith(("model.toy.", "model.lejepa."))
            ), (task, name)
    assert len(overview("fit", "").splitlines()) < 60


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config files and a run directory to go wrong with."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "good": "trainer: {max_epochs: 1}",
        "key": "trainer: {max_epoch: 1}",
        "group": "modell: {a: 1}",
        "syntax": "model: [1,\n",
        "over": "overwrite: false",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    for name in ("done", "unfinished"):
        Path(name, "checkpoints").mkdir(parents=True)
    Path("done", "DONE").touch()
    Path("unfinished", "metrics.csv").touch()
    return tmp_path


EARLY = {
    "misspelled command": ("fitt", "fitt: no such command; ", "; did you mean fit?"),
    "config without --config": ("fit good.yaml", "good.yaml does not belong to an option", "--config good.yaml"),
    "a word too many": (
        "validate --config good.yaml other",
        "other does not belong to an option",
        "write --KEY before every value",
    ),
    "misspelled group": ("fit --modle.backbone.registers 4", "--modle.backbone.registers: ", "did you mean model?"),
    "unknown group": ("predict --zzz=1", "--zzz: no such key or group of keys", "--help lists the groups"),
    "group in a file": ("fit --config group.yaml", "group.yaml: modell: ", "did you mean model?"),
    "no file": ("fit -c none.yaml", "config=none.yaml: no such file", ""),
    "not YAML": ("plan --config=syntax.yaml", "config=syntax.yaml: not a YAML file (", "line 2)"),
    "finished run": ("fit --config good.yaml --run_dir done", "run_dir=done: contains a finished run", "--overwrite"),
    "unfinished run": ("fit --run_dir=unfinished", "run_dir=unfinished: contains an unfinished run", "--overwrite"),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_mistake_is_found_before_the_imports(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, start, end = EARLY[name]
    for module in ("sinkablate.cli.lightning", "sinkablate.cli.trainer_command"):
        monkeypatch.setitem(sys.modules, module, None)  # to import it is an error now
    refused = run(*words.split())
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert start in refused.err
    assert end in refused.err


LATE = {
    "misspelled key": ("fit --trainer.max_epoch 3", "did you mean --trainer.max_epochs?"),
    "key in a file": ("fit --config key.yaml", "trainer.max_epoch: no such key; did you mean trainer."),
    "nested key": ("plan --model.backbone.attention.scor=relu", "did you mean --model.backbone.attention.score?"),
    "other command": ("compare x.csv --metrik a", "did you mean --metric?"),
    "command of sweep": ("sweep rum x", "did you mean run?"),
    "option of sweep": ("sweep run x.yaml --jbs 3", "did you mean --jobs?"),
    "group of the help": ("fit --help model.optm", "did you mean model.optim?"),
}


@pytest.mark.parametrize("name", LATE)
def test_a_misspelled_name_comes_with_the_nearest(name: str, files: Path) -> None:
    words, end = LATE[name]
    refused = run(*words.split())
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert end in refused.err


@pytest.mark.parametrize("words", ["--overwrite", "--overwrite=true", "--config over.yaml", "--ckpt_path auto"])
def test_whatever_may_allow_to_write_over_a_run_is_left_to_the_parser(words: str, files: Path) -> None:
    said = run("fit", "--run_dir", "done", *words.split(), "--trainer.bogus", "1")
    assert "--trainer.bogus" in said.err


def test_another_rank_does_not_refuse_what_the_first_has_opened(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "--trainer.bogus" in run("fit", "--run_dir", "unfinished", "--trainer.bogus", "1").err


def test_help_of_a_group_shows_its_keys_alone() -> None:
    shown = run("fit", "--help", "model.optim").succeeded().out
    assert "--model.optim.lr LR" in shown
    assert "--model.backbone" not in shown
    assert "--model.toy.attention.score" in run("fit", "--task=toy", "--help=model.toy").succeeded().out


def test_an_encoding_without_the_characters_of_a_name_prints_escapes() -> None:
    code = "from sinkablate.__main__ import main; import sys; sys.exit(main(['fit', '--mödel', '\u2013']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii:strict"},
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        b"error: --m\\xf6del: no such key or group of keys; did you mean model?\n",
    )
