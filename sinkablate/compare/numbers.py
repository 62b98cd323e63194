"""Format numbers with as many decimals as the spread between runs supports."""

from math import floor, isfinite, log10, nan

from sinkablate.compare.comparison import Comparison
from sinkablate.compare.statistics import Inference

NA = "NA"
MOST_DECIMALS = 8


def decimals(comparison: Comparison) -> int:
    """Return the number of decimals that shows two digits of the median sample standard deviation of the cells.

    Where no cell has a spread, a hundredth of the largest mean takes its place.
    """
    spreads = sorted(cell.sd for cell in comparison.cells if cell.sd > 0)
    scale = (
        spreads[len(spreads) // 2]
        if spreads
        else max((abs(cell.mean.value) for cell in comparison.cells if isfinite(cell.mean.value)), default=nan) / 100
    )
    if not (isfinite(scale) and scale > 0):
        return 4
    return min(MOST_DECIMALS, max(0, 1 - floor(log10(scale))))


def number(value: float, places: int, *, sign: bool = False) -> str:
    """Format a number with `places` decimals and, for a difference, its sign; NA if it is undefined."""
    if not isfinite(value):
        return NA
    text = f"{value:{'+' if sign else ''},.{places}f}"
    return text.replace("-", "") if sign and not float(text.replace(",", "")) else text


def interval(estimate: Inference, places: int, *, sign: bool = False) -> str:
    """Format the interval of an estimate as [low, high]."""
    if not (isfinite(estimate.low) and isfinite(estimate.high)):
        return NA
    return f"[{number(estimate.low, places, sign=sign)}, {number(estimate.high, places, sign=sign)}]"


def probability(p: float) -> str:
    """Format a p-value with three decimals, or as < .001."""
    if not isfinite(p):
        return NA
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 0.9995 else "1"


def p_is(p: float) -> str:
    """Format a p-value for a sentence: `p = .012` or `p < .001`."""
    shown = probability(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
