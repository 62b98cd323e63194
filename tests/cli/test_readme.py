"""Every command of the README, in its order, in one folder; made small, and pointed at images that exist."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from running import CONFIGS, QUICK, ROOT, run, spawn

from sinkablate.__main__ import VERBS

README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("python -m sinkablate ")]
SMALLER = (
    "--trainer.precision=32-true",
    "--trainer.devices=1",
    "--data.num_workers=0",
    "--data.batch_size=8",
    "--data.eval_batch_size=8",
    "--data.image.size=32",
    "--data.source.num_classes=10",
)


def test_the_commands_in_order(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "sweeps"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet").symlink_to(image_folder)
    for line in COMMANDS:
        here = re.sub(r"{0000\.\.\d+}", "0000", re.sub(r"(?<![\w.])/data/", f"{tmp_path}/data/", line))
        if here.startswith("export "):
            for name, value in (word.split("=", 1) for word in shlex.split(here)[1:]):
                monkeypatch.setenv(name, value)
        elif line in OURS:
            words = shlex.split(here.split("#")[0])[3:]
            small = [*QUICK, *(SMALLER if "imagenet.yaml" in here else ())] if words[0] == "fit" else []
            if "configs/toy" in here:  # no images to evaluate on
                small = [word for word in QUICK if not word.startswith("--data.eval_batch_size")]
            if "--run_dir" not in words and "imagenet.yaml" in here:
                small += ["--run_dir", "runs/imagenet"]
            run(*words, *small).succeeded()
    assert len(OURS) >= 7
    assert (tmp_path / "runs" / "imagenet" / "DONE").exists()


def test_make_runs_what_the_readme_says() -> None:
    recipe = subprocess.run(["make", "-n", "fit", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (said,) = re.findall(r"make fit .*then: python -m (.*)", README)
    assert f"python -m {said}\n" in recipe
    assert "python -m pytest -n auto --dist loadfile\n" in recipe


def test_every_config_is_in_the_table_with_its_own_words() -> None:
    for path in CONFIGS.glob("*.yaml"):
        first = path.read_text().splitlines()[0].removeprefix("# ")
        assert f"| `{path.stem}` | {first} |" in README


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/two_algorithms.md",
        "docs/compare.md",
        "docs/ablation.md",
        "benchmarks/README.md",
        "slurm/README.md",
    ],
)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_make_runs_what_the_page_of_the_two_algorithms_says() -> None:
    dry = ["make", "-n", "two_algorithms"]
    recipe = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "two_algorithms.md").read_text()
    said = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(said) == 9
    assert [line.removeprefix(".venv/bin/") for line in recipe.splitlines() if "sinkablate" in line][-9:] == said
    assert set(re.findall(r"docs/(figures/\S+)", recipe)) == set(re.findall(r"\((figures/[^)]+)", page))


def test_help_lists_every_verb_and_answers_as_a_process() -> None:
    shown = spawn("--help").succeeded().out
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", shown, re.MULTILINE))
    assert listed == VERBS
    assert all(len(line) > 20 for line in listed.values())


@pytest.mark.heavy
def test_the_default_run_reaches_what_it_promises(tmp_path: Path) -> None:
    """In three epochs of the twelve, which end at an accuracy that only a training as it should be reaches."""
    outcome = run(
        "fit",
        "--config",
        CONFIGS / "gate_reg.yaml",
        "--run_dir",
        tmp_path / "run",
        "--wandb.mode=disabled",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=3",
    ).succeeded()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["val/acc1"] >= 0.77
    for said in ("validation accuracy", "training images/s", "sinks per image", "token norm", "run directory:"):
        assert said in outcome.out
