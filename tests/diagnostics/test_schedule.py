"""The steps at which a run is measured."""

from sinkablate.diagnostics.schedule import measured_steps


def test_measured_steps_are_the_first_the_last_and_those_in_between() -> None:
    assert measured_steps(50, 0, 120) == [0, 50, 100, 120]
    assert measured_steps(50, 1, 120) == [0, 1, 2, 4, 8, 16, 32, 50, 64, 100, 120]
    assert measured_steps(2, 0, 6) == [0, 2, 4, 6]
    assert measured_steps(0, 2, 6) == []
