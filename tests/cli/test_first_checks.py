"""Mistakes in a command line are reported before anything slow is imported, with the most similar valid name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import run

from sinkablate.cli.lightning import Cli
from sinkablate.config.keys import GROUPS, MOST_USED, first_names, overview
from sinkablate.plan.command import PlanCli


def keys(command: str, task: str) -> set[str]:
    """All keys that the parser of a command accepts."""
    names: set[str] = set()

    class Stopping(PlanCli if command == "plan" else Cli):  # type: ignore[misc]
        def parse_arguments(self, parser: Any, args: Any) -> None:
            names.update(action.dest for action in self._parser(self.command)._actions)
            raise SystemExit

    with pytest.raises(SystemExit):
        Stopping("fit" if command == "plan" else command, ["--task", task])
    return names


@pytest.mark.parametrize("command", ["fit", "validate", "predict", "plan"])
def test_the_first_checks_know_every_key_of_the_parser(command: str) -> None:
    assert {name.partition(".")[0] for name in keys(command, "classify")} == first_names(command)


def test_help_lists_exactly_the_existing_groups() -> None:
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
    """Valid and invalid config files, a finished run and an unfinished one, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "good": "trainer: {max_epochs: 1}",
        "key": "trainer: {max_epoch: 1}",
        "group": "modell: {a: 1}",
        "syntax": "model: [1,\n",
        "over": "overwrite: false",
        "value": "model: {backbone: {attention: {gate: headwis}}}",
        "empty": "# no key\n",
        "list": "- variant\n",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    for name in ("done", "unfinished"):
        Path(name, "checkpoints").mkdir(parents=True)
    Path("done", "DONE").touch()
    Path("unfinished", "metrics.csv").touch()
    return tmp_path


INCOMPLETE = {
    "fit --seed_everything abc": "seed_everything=abc: must be an integer",
    "fit --run_dir": "run_dir: the value is missing; write --run_dir RUN_DIR",
    "fit --model.backbone list.yaml": "model.backbone=list.yaml: not a YAML file with keys of this group",
    "diagnose --thresholds.nop_max abc --out o": "thresholds.nop_max=abc: must be a number",
    "diagnose --run x": "--out OUT: required, but not given; `sinkablate diagnose --help` describes every option",
    "intervene --run x --out": "out: the value is missing; write --out OUT",
    "report": "RUNS --out OUT: required, but not given; `sinkablate report --help` describes every option",
    "compare --config list.yaml": "list.yaml: contains no keys (- variant); a config is a YAML mapping, such as",
    "shards images --dst out": "--dst: not an option; give DST by its position, without --dst",
    "sweep run": "FILE: required, but not given; `sinkablate sweep run --help` describes every option",
}


@pytest.mark.parametrize("command", INCOMPLETE)
def test_a_value_that_is_missing_or_of_another_type_is_one_line(command: str, files: Path) -> None:
    refused = run(*command.split())
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.startswith(f"error: {INCOMPLETE[command]}")


EARLY = {
    "misspelled command": ("fitt", "fitt: no such command; ", "; did you mean fit?"),
    "config without --config": ("fit good.yaml", "good.yaml does not belong to an option", "--config good.yaml"),
    "a superfluous argument": (
        "validate --config good.yaml other",
        "other does not belong to an option",
        "write --KEY before every value",
    ),
    "misspelled group": ("fit --modle.backbone.registers 4", "--modle.backbone.registers: ", "did you mean model?"),
    "unknown group": ("predict --zzz=1", "--zzz: no such key or group of keys", "--help lists the groups"),
    "group in a file": ("fit --config group.yaml", "group.yaml: modell: ", "did you mean model?"),
    "missing file": ("fit -c none.yaml", "config=none.yaml: no such file", ""),
    "not YAML": ("plan --config=syntax.yaml", "config=syntax.yaml: not a YAML file (", "line 2)"),
    "empty config": ("fit --config empty.yaml", "config=empty.yaml: contains no keys (it is empty)", "a mapping"),
    "config that is a folder": ("fit --config done", "config=done: is a directory", "name a YAML file"),
    "config that is a list": ("plan -c list.yaml", "config=list.yaml: contains no keys (it is a list)", "a mapping"),
    "finished run": ("fit --config good.yaml --run_dir done", "run_dir=done: contains a finished run", "--overwrite"),
    "unfinished run": ("fit --run_dir=unfinished", "run_dir=unfinished: contains an unfinished run", "--overwrite"),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_mistake_is_reported_before_the_imports(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args, start, end = EARLY[name]
    for module in ("sinkablate.cli.lightning", "sinkablate.cli.trainer_command"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it now raises an error
    refused = run(*args.split())
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
    "key of a group that may be null": (
        "diagnose --thresholds.nopmax 1 --out o",
        "error: --thresholds.nopmax: no such option; did you mean --thresholds.nop_max?\n",
    ),
    "value": (
        "fit --model.backbone.attention.gate headwis",
        "error: model.backbone.attention.gate=headwis: must be one of none, headwise, elementwise; did you mean headw",
    ),
    "value in a file": ("fit --config value.yaml", "value.yaml: model.backbone.attention.gate=headwis: must be one of"),
    "value without a near one": ("compare x --format yml", "error: format=yml: must be one of table, json, latex, "),
    "model": ("plan --model.backbone.name vit_tinny", "timm has no such model; did you mean vit_tiny_patch16_224 or "),
    "edit": ("intervene --run x --out o --edits mean_valu", "did you mean mean_value or random_value or zero_value?\n"),
    "group of the help": ("fit --help model.optm", "did you mean model.optim?"),
}


@pytest.mark.parametrize("name", LATE)
def test_a_misspelled_name_is_corrected(name: str, files: Path) -> None:
    args, end = LATE[name]
    refused = run(*args.split())
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert end in refused.err


@pytest.mark.parametrize("args", ["--overwrite", "--overwrite=true", "--config over.yaml", "--ckpt_path auto"])
def test_the_first_checks_accept_whatever_may_allow_overwriting(args: str, files: Path) -> None:
    outcome = run("fit", "--run_dir", "done", *args.split(), "--trainer.bogus", "1")
    assert "--trainer.bogus" in outcome.err


def test_another_rank_accepts_the_directory_that_the_first_has_created(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "--trainer.bogus" in run("fit", "--run_dir", "unfinished", "--trainer.bogus", "1").err


def test_help_for_a_group_shows_only_its_keys() -> None:
    text = run("fit", "--help", "model.optim").succeeded().out
    assert "--model.optim.lr LR" in text
    assert "--model.backbone" not in text
    assert "--model.toy.attention.score" in run("fit", "--task=toy", "--help=model.toy").succeeded().out


def test_characters_outside_the_encoding_are_escaped() -> None:
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
