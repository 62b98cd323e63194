"""The optimizer steps at which a run is measured: every n steps, and more often at its beginning."""

from itertools import count, takewhile

YOUNG = 4
"""Early training, before this many times `every_n_steps`, is measured more densely."""


def early_steps(every_n_steps: int, per_doubling: int) -> frozenset[int]:
    """Return geometrically spaced steps: `per_doubling` per doubling, from step 1 up to 4 * `every_n_steps`.

    Sinks form early and abruptly, so evenly spaced measurements would miss the process. The steps follow from the
    two numbers alone, so a resumed run continues the same schedule.
    """
    if not per_doubling:
        return frozenset()
    spaced = (round(2 ** (number / per_doubling)) for number in count())
    return frozenset(takewhile(lambda step: step < YOUNG * every_n_steps, spaced))


def measured_steps(every_n_steps: int, per_doubling: int, steps: int) -> list[int]:
    """Return the optimizer steps after which a run of this many steps is measured, in ascending order.

    They are 0, the multiples of `every_n_steps`, the early steps, and the last step.
    """
    if not every_n_steps:
        return []
    early = {step for step in early_steps(every_n_steps, per_doubling) if step <= steps}
    return sorted({*range(0, steps + 1, every_n_steps), *early, steps})
