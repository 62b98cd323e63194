"""One evaluation: from a model to the files it writes."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl
from filelock import FileLock

from sinkablate.distributed.gather import from_first_rank
from sinkablate.evaluate.rows import BackboneName, Row, protocols_of, scalars
from sinkablate.evaluate.store import FIGURES, Store
from sinkablate.evaluate.subject import Subject
from sinkablate.evaluate.tasks import Task
from sinkablate.figures.evaluation import overview
from sinkablate.figures.sinks import save
from sinkablate.files.writing import naming
from sinkablate.process.memory import peak_memory_gib
from sinkablate.process.threads import considerate_threads
from sinkablate.run.directory import lock_directory, unlock_directory
from sinkablate.run.provenance import provenance


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model, tasks, and everything else that determines the results."""

    subject: Subject
    tasks: Sequence[Task]
    floors: bool = True
    """Whether the random backbone and raw pixels are measured as well."""
    run_id: str = ""
    _backbones: dict[BackboneName, Subject] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Everything that determines the results of all tasks, as plain values."""
        return {**self.subject.loaded.identity, "seeds": list(self.subject.seeds), "floors": self.floors}

    def settings(self) -> dict[str, Any]:
        """Task -> its settings and images, as plain values."""
        return {task.name: self._settings(task) for task in self.tasks}

    def _settings(self, task: Task) -> dict[str, Any]:
        config = self.subject.config
        values = {name: asdict(getattr(config, name)) for name in (task.name, *task.settings) if hasattr(config, name)}
        values.get("features", {}).pop("cache", None)
        images = [*(images for _, images in task.reads(self.subject)), *task.measures(self.subject)]
        return values | {"images": [of_set.identity for of_set in images]}

    def rows_of(self, task: Task) -> list[Row]:
        """Measure the model and the floors of a task."""
        return [
            replace(row, backbone=subject.backbone.name)
            for subject in self._subjects(task)
            for row in task.run(subject)
        ]

    def _subjects(self, task: Task) -> list[Subject]:
        names: tuple[BackboneName, ...] = ("model", *(task.floors if self.floors else ()))
        for name in names:
            if name not in self._backbones:
                self._backbones[name] = self.subject.with_backbone(name)
        return [self._backbones[name] for name in names]

    @considerate_threads()
    def finish(self, store: Store) -> dict[str, Any]:
        """Run the tasks that the store does not hold yet, and write tables and figures; returns `evaluation.json`.

        All ranks extract features; the first one runs the tasks and writes.

        Raises:
            UserError: Another process writes to the directory, or a task cannot run.
        """
        locks: list[FileLock] = []
        from_first_rank(lambda: locks.append(lock_directory(store.out, "out")))
        try:
            seconds: dict[str, float] = {}
            for name in from_first_rank(lambda: self._open(store)):
                seconds[name] = self._run(next(task for task in self.tasks if task.name == name), store)
            return from_first_rank(lambda: self._summarize(store, seconds))
        finally:
            for lock in locks:
                unlock_directory(lock)
                with suppress(OSError):  # an error before anything was written leaves no empty directory
                    store.out.rmdir()

    def _run(self, task: Task, store: Store) -> float:
        """Extract the features of a task on all ranks, then run it on the first one; returns the seconds it took."""
        begun = time.perf_counter()
        for subject in self._subjects(task):
            for reading, images in task.reads(subject):
                subject.extract(reading, images)
        from_first_rank(lambda: store.add(self.rows_of(task)))
        return time.perf_counter() - begun

    def _open(self, store: Store) -> list[str]:
        """Open the store; returns the names of the tasks that it does not hold."""
        store.open()
        return [task.name for task in self.tasks if task.name not in store.finished]

    def _summarize(self, store: Store, seconds: dict[str, float]) -> dict[str, Any]:
        """Draw the figures and write `evaluation.json`, unless it is complete already."""
        if store.summarized and not seconds:
            return store.summary
        table = store.rows
        folder = store.out / FIGURES
        with naming(folder):
            folder.mkdir(exist_ok=True)
        figures: dict[str, Callable[[], Any]] = {"evaluation": lambda: overview(table, self.subject.loaded.title)}
        for task in self.tasks:
            for name, draw in task.figures.items():
                figures[name] = lambda draw=draw, task=task: draw(table.filter(pl.col("task") == task.name))  # type: ignore[misc]
        for name, make in figures.items():
            save(make(), folder / name)
        neurons = self.subject.loaded.register_neurons
        return store.summarize(
            {
                **scalars(table),
                "protocols": {task: protocols[0] for task, protocols in protocols_of(table).items()},
                "run_id": self.run_id or None,
                "register_neurons": neurons and asdict(neurons),
                "device": str(self.subject.device),
                "seconds": dict.fromkeys(store.finished) | store.summary.get("seconds", {}) | seconds,
                "peak_memory_gib": peak_memory_gib(),
                **provenance(),
            }
        )
