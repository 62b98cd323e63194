"""The optimizer steps at which a run is measured, in addition to every n steps."""

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
