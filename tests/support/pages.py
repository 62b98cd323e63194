"""The code blocks of README and docs, and how a test runs them: small, in this process, in one folder per page."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, ROOT, run

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"))
)
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
SMALL_IMAGENET = (
    "--trainer.precision=32-true",
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--data.num_workers=0",
    "--data.batch_size=8",
    "--data.eval_batch_size=8",
    "--data.image.size=32",
    "--data.source.num_classes=10",
    "--model.backbone.depth=2",
    "--model.backbone.embed_dim=64",
    "--model.backbone.num_heads=4",
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    text: str
    not_run: str | None
    """Why the block cannot run here, from the comment `<!-- not run: REASON -->` on the line above it."""

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, continued lines joined, without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = (re.sub(r"(^|\s)# .*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    source = (ROOT / page).read_text()
    return [
        Block(
            source.count("\n", 0, match.start()) + 1, match["language"], textwrap.dedent(match["text"]), match["reason"]
        )
        for match in FENCE.finditer(source)
    ]


@dataclass
class PageRunner:
    """Runs the blocks of one page in one folder; Python blocks share their variables, as in a notebook."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    runs: Path
    """Where the runs are that a page may read without training them first."""
    variables: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def execute(self, block: Block) -> None:
        """Run a block, or check it as far as it can be checked without running."""
        match block.language:
            case "bash" if block.not_run is None:
                for line in block.commands:
                    self._command(line)
            case "bash":
                subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
                for line in block.commands:
                    self._check_options(line)
            case "python" if block.not_run is None:
                self._provide(block.text)
                code = compile(self._local(block.text), f"block at line {block.line}", "exec")
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, self.variables)
            case "python":
                compile(block.text, f"block at line {block.line}", "exec")
            case "yaml":
                self._config(block)
            case "text":
                assert "python -m sinkablate" not in block.text, "a command: write it into a bash block"
            case other:
                raise AssertionError(f"a block of language {other!r}: use bash, python, yaml or text")

    def _local(self, text: str) -> str:
        """The same text with paths that exist here, and without downloads of weights."""
        text = re.sub(r"{0000\.\.\d+}", "0000", re.sub(r"(?<![\w.])/data/", f"{self.folder}/data/", text))
        return (
            re.sub(r"pretrained([ =]+)[Tt]rue", r"pretrained\1false", text)
            if "--" in text
            else re.sub(r"pretrained=True", "pretrained=False", text)
        )

    def _words(self, line: str) -> list[str]:
        """Words of a command; assignments in front of it are made, as `export` makes them."""
        words = shlex.split(self._local(line))
        if words[0] == "export":
            words = words[1:]
        while words and re.match(r"[A-Z_]+=", words[0]):
            self.monkeypatch.setenv(*words.pop(0).split("=", 1))
        return words

    def _provide(self, text: str) -> None:
        """Copy the runs that a command or a block reads and that the page has not trained."""
        for name in re.findall(r"\bruns/([\w-]+)", text):
            source, target = self.runs / "runs" / name, self.folder / "runs" / name
            if source.exists() and not target.exists():
                shutil.copytree(source, target)

    def _command(self, line: str) -> None:
        words = self._words(line)
        if "fit" not in words:
            self._provide(line)
        if not words:
            return
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, check=True)
        elif words[1:2] in (["slurm/fit.sbatch"], ["slurm/evaluate.sbatch"]) and "--dry-run" in words:
            subprocess.run(words, cwd=self.folder, capture_output=True, check=True)
        else:
            outcome = run(*small(arguments(words)))
            assert outcome.code == 0, f"{line}\n{outcome.err}"

    def _check_options(self, line: str) -> None:
        """A command that cannot run here: its configuration is read, or every option is one that its help lists."""
        words = self._words(line)
        with contextlib.suppress(ValueError):
            start = words.index("slurm/fit.sbatch") + 1
            given = [word for word in words[start:] if word != "--dry-run"]
            configs = [word for path in given[0].split(",") for word in ("--config", path)]
            run("fit", *configs, *given[1:], "--print_config").succeeded()
            return
        if "sinkablate" not in words:
            return
        command = words[words.index("sinkablate") + 1 :]
        if command[0] == "fit":
            run(*command, "--print_config").succeeded()
            return
        names = command[: 2 if command[0] == "sweep" else 1]
        shown = run(*names, "--help").succeeded().out
        for word in command:
            if word.startswith("--"):
                assert word.split("=")[0] in shown, f"{line}: {word} is not in `{' '.join(names)} --help`"

    def _config(self, block: Block) -> None:
        name = re.match(r"# (\w+\.yaml)", block.text)
        path = self.folder / (name[1] if name else f"block-{block.line}.yaml")
        path.write_text(self._local(block.text))
        if "method: grid" in block.text:
            run("sweep", "plan", path).succeeded()
        else:
            run("fit", "--config", path, "--print_config").succeeded()


def arguments(words: list[str]) -> list[str]:
    """What follows `sinkablate` or `python -m sinkablate`."""
    start = 1 if words[0] == "sinkablate" else 3
    assert words[:start] in (["sinkablate"], ["python", "-m", "sinkablate"]), (
        f"{shlex.join(words)}: this command cannot run in a test; write `<!-- not run: REASON -->` above the block"
    )
    return words[start:]


QUICK_QUANTIZATION = ("--quantization.bits", "[8]", "--quantization.limit", "4", "--quantization.layer_limit", "1")


def small(words: list[str]) -> list[str]:
    """A command with options that make it take about a second."""
    if words[0] == "fit" and "--print_config" not in words and "--help" not in words:
        names = " ".join(words)
        quick = [word for word in QUICK if "toy" not in names or not word.startswith("--data.eval_batch_size")]
        imagenet = SMALL_IMAGENET if "configs/data/" in names else ()
        if "finetune.yaml" in names:  # patches of 14 pixels, and a warm-up that is longer than two steps
            own = ("--data.num_workers=0", "--data.source.num_classes=10") if imagenet else ()
            return [
                *words,
                *quick,
                *own,
                "--data.image.size=28",
                "--model.backbone.depth=2",
                "--model.optim.warmup_steps=0",
            ]
        run_dir = ("--run_dir", "runs/imagenet") if imagenet and "--run_dir" not in words else ()
        return [*words, *quick, *imagenet, *run_dir]
    if words[0] in ("diagnose", "intervene") and "--limit" not in words:
        size = ["--backbone.img_size", "56"] if "--backbone.img_size" in words else []
        return [*words, *size, "--limit", "2"]
    if "evaluate" in words[:2] and "--data.source.format" not in words:  # a set of 40 images
        source = "--data.source"
        folder = (f"{source}.train", "data/imagenet/train", f"{source}.val", "data/imagenet/val")
        return [*words, f"{source}.format", "folder", *folder, "--linear.epochs", "2", *QUICK_QUANTIZATION]
    if words[:2] == ["sweep", "run"]:  # in this very process
        return [*words, "--jobs", "1"]
    return words


def small_sweeps(folder: Path) -> None:
    """The shipped sweeps, cut to one seed and their cells to two steps."""
    for source in (ROOT / "sweeps").rglob("*.yaml"):
        target = folder / "sweeps" / source.relative_to(ROOT / "sweeps")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"seed_everything: {values: .*}", "seed_everything: {values: [0]}", source.read_text())
        quick = ", ".join(f"{word.split('=')[0]}, {word.split('=')[1]}" for word in QUICK)
        target.write_text(text.replace("--ckpt_path, auto", f"{quick}, --ckpt_path, auto"))
