"""A callback on finished syncs that takes a while, as a stage's process finds it by its name."""

import os
import signal
import time

from mlops_tasks.data.callbacks import FinishedSync


def listen(finished: FinishedSync) -> None:
    """Note the call in the home; in the version that `KILLED_IN` names, die."""
    time.sleep(0.5)
    with (finished.settings.home / "heard").open("a") as file:
        file.write(f"{finished.data_version} {finished.previous_version}\n")
    if os.environ.get("KILLED_IN") == finished.data_version:
        os.kill(os.getpid(), signal.SIGKILL)
