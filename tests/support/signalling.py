"""Sends signals to this process at a known moment of training."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import pytest

from sinkablate.callbacks.preemption import Preemption
from sinkablate.process import signals


@contextmanager
def signal_at(step: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """Send a signal to this process in the middle of a training step, while the block runs."""

    def send(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), number)

    handlers = {handled: signal.getsignal(handled) for handled in signals.SIGNALS}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Preemption, "on_before_backward", send)
            yield
    finally:
        signals.reset()
        for handled, handler in handlers.items():
            signal.signal(handled, handler)
