"""Progress lines while the stack starts: elapsed seconds and a short sentence."""

import time


class Progress:
    """Prints one line per step, with the seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Print one step."""
        print(f"[{self.elapsed_s:7.1f} s] {text}", flush=True)
