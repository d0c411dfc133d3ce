"""A stage that computes features and is killed with SIGKILL at its n-th rename, then run again.

Each try is a fork of the stage's process, which has imported everything and used nothing.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.features import values  # noqa: F401  the fork must not pay for the import
from mlops_tasks.features.store import FeatureStore
from tests.features.small_sets import feature_set

SPREAD = feature_set("spread", {"KLEN": "($high-$low)/$open"})


def run(home: Path, data_version: str, kill_at: int) -> int:
    """The wait status of a fork that computes features and dies just before its `kill_at`-th rename."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, _: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "os.rename":
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        settings = Settings(home=home)
        FeatureStore(settings).compute(load_vintage(settings, data_version), SPREAD)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def kill_at_every_rename(home: str, data_version: str, tries: str) -> dict[str, list[int]]:
    """Every rename of one computation as a place to die; `statuses`: how the run after each kill ended.

    `home` has the vintage; each try is in a copy of it below `tries`.
    """
    statuses: list[int] = []
    while True:
        copy = Path(tries, str(len(statuses)))
        shutil.copytree(home, copy)
        if run(copy, data_version, len(statuses) + 1) == 0:
            return {"statuses": statuses}
        statuses.append(run(copy, data_version, 0))
