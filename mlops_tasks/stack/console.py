"""Lines that a person reads while the stack starts: elapsed seconds and one short sentence."""

import time


class Progress:
    """Prints a line a step, with the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Print one step."""
        print(f"[{self.elapsed_s:7.1f} s] {text}", flush=True)
