"""How long a training has worked, and how fast its iterations are."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class WorkingTime:
    """Time without pauses, including that of earlier processes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first_lap = 0.0
        self._laps = 0

    @property
    def seconds(self) -> float:
        """Time spent so far, in all processes."""
        return time.monotonic() - self._started

    def resume(self, seconds: float) -> None:
        """Add the time that earlier processes spent."""
        self._started -= seconds

    def lap(self) -> None:
        """An iteration has ended."""
        self._first_lap = self._first_lap or self.seconds
        self._laps += 1

    @property
    def lap_seconds(self) -> float | None:
        """Mean duration of this process's iterations without the first, which also sets things up; None before two."""
        return (self.seconds - self._first_lap) / (self._laps - 1) if self._laps > 1 else None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the time that the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - began
