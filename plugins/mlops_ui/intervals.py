"""Where intervals and bars lie in a drawing that a template makes: a pure function of the numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 600.0
"""Of a drawing, in its own units."""
MARGIN = 10.0


@dataclass(frozen=True)
class Drawn:
    """An interval with its middle, left to right."""

    low: float
    middle: float
    high: float
    open_low: bool
    """Whether it has no lower end."""
    open_high: bool


@dataclass(frozen=True)
class Scale:
    """Maps numbers to places: 0 is always on it."""

    first: float
    last: float

    @classmethod
    def over(cls, values: Sequence[float | None]) -> "Scale":
        """A scale that has all the values, as far as they are known, and 0."""
        known = [0.0, *(each for each in values if each is not None)]
        first, last = min(known), max(known)
        return cls(first, last) if first < last else cls(first - 1.0, last + 1.0)

    def place(self, value: float) -> float:
        """Where a number lies, from `MARGIN` to `WIDTH` less `MARGIN`."""
        return round(MARGIN + (value - self.first) / (self.last - self.first) * (WIDTH - 2 * MARGIN), 2)

    @property
    def zero(self) -> float:
        """Where 0 lies."""
        return self.place(0.0)

    def drawn(self, low: float | None, middle: float | None, high: float | None) -> Drawn | None:
        """An interval; None where its middle is not known. An end that is not known is the drawing's."""
        if middle is None:
            return None
        ends = (MARGIN if low is None else self.place(low), WIDTH - MARGIN if high is None else self.place(high))
        return Drawn(ends[0], self.place(middle), ends[1], low is None, high is None)
