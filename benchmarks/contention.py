"""Measure how much other processes on the machine slow down `fit`, `diagnose` and `intervene`.

    python -m benchmarks.contention [--rounds 3] [--jobs fit,larger,diagnose,intervene]

Each round runs every job next to zero busy processes, one, and as many as there are CPUs: once as shipped, and once
with an explicit waiting policy of GNU OpenMP (GOMP_SPINCOUNT=300000), which turns off the
one that sinkablate sets. The two settings alternate. Imports and start-up are not counted.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from sinkablate.process.cpus import usable_cpus

SPINNING = {"GOMP_SPINCOUNT": "300000"}
FIT = [
    "fit",
    "--wandb.mode=disabled",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_val_batches=0",
    "--run_dir={folder}/run",
]
RANDOM = ["--backbone.pretrained=false", "--images=builtin", "--device=cpu", "--out={folder}/out"]
JOBS = {
    "fit": [*FIT, "--config=configs/gate_reg.yaml"],
    "larger": [
        *FIT,
        "--model.backbone.name=vit_tiny_patch16_224",
        "--data.image.size=224",
        "--data.batch_size=8",
        "--trainer.limit_train_batches=12",
        "--diagnostics.every_n_steps=0",
    ],
    "diagnose": ["diagnose", "--backbone.name=vit_small_patch16_224", *RANDOM, "--limit=16"],
    "intervene": ["intervene", "--backbone.name=vit_tiny_patch16_224", *RANDOM, "--limit=8", "--heads=6:0,9:1"],
}
LIMITS = {"fit": {1: 1 / 0.8, 2: 1 / 0.4}, "larger": {1: 2.2}, "diagnose": {1: 2.2}, "intervene": {1: 2.2}}
"""Largest permitted slowdown, by the number of busy CPUs."""


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that keep one CPU busy each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def seconds(job: str, env: dict[str, str]) -> float:
    """Seconds of a job in its own process."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.contention", "--child", job],
        env=clean | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def child(job: str) -> None:
    """Print the seconds of a job without its imports."""
    import sinkablate.cli.lightning  # noqa: F401
    import sinkablate.diagnose.command  # noqa: F401
    import sinkablate.intervene.command  # noqa: F401
    from sinkablate.__main__ import main

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            code = main([word.format(folder=folder) for word in JOBS[job]])
        if code:
            raise SystemExit(code)
        print(time.perf_counter() - start)


def compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    cpus = usable_cpus()
    counts = sorted({0, 1, cpus})
    print(f"{cpus} CPUs; median seconds of {args.rounds} rounds, and the ratio to the idle time with the same policy")
    for job in args.jobs.split(","):
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(args.rounds):
            for count in counts:
                for side, env in {"shipped": {}, "spinning": SPINNING}.items():
                    with busy_processes(count):
                        times.setdefault((side, count), []).append(seconds(job, env))
        idle = {side: statistics.median(times[side, 0]) for side in ("shipped", "spinning")}
        print(
            f"\n{job}: idle {idle['shipped']:.1f} s, {idle['shipped'] / idle['spinning']:.3f} of the spinning time "
            "(target: <= 1.03)"
        )
        for count in counts[1:]:
            shipped, spinning = (statistics.median(times[side, count]) for side in ("shipped", "spinning"))
            limit = LIMITS[job].get(count)
            print(
                f"  {count} of {cpus} CPUs busy: {shipped:6.1f} s, {shipped / idle['shipped']:.2f} times"
                f"{f' (target: <= {limit:.2f})' if limit else ''}; "
                f"spinning {spinning:6.1f} s, {spinning / idle['spinning']:.2f} times",
                flush=True,
            )


if __name__ == "__main__":
    compare()
