"""A look that is taken again and again, in a thread of its own."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Poller:
    """Looks at once, then every `pause_s` seconds, or sooner where somebody wakes it."""

    def __init__(self, look: Callable[[], None], pause_s: float) -> None:
        self._look = look
        self._pause_s = pause_s
        self._awake = threading.Event()
        self._ended = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self.run, name="poller", daemon=True).start()

    def run(self) -> None:
        """Look until it is stopped."""
        while not self._ended:
            self._awake.clear()
            try:
                self._look()
            except Exception:
                # The thread must not end: with it the service would stop following the champion, without a word.
                log.exception("the look at champion and vintage failed")
            self._awake.wait(self._pause_s)

    def wake(self) -> None:
        """Look now, or once more if a look is under way."""
        self._awake.set()

    def stop(self) -> None:
        """End after the look that is under way."""
        self._ended = True
        self._awake.set()
