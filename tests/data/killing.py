"""A sync killed with SIGKILL at its n-th change of the file system, then run again: `python -m tests.data.killing`.

Each try is a fork of a process that has made the same syncs in a home of its own, so that a kill point costs a sync,
not the imports and what libraries do once. Arguments: a folder for the homes, how many kill points to spread over the
last sync, and the sources, one sync each. The last line of output is JSON: for each kill point whether the try was
killed, whether what is in use then is whole, and the exit status of the run after it.
"""

import json
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.store import remember_store
from tests.data.disk_changes import changes_of
from tests.data.market import sync, tree


def in_fork(work: Callable[[], None]) -> int:
    """The wait status of a fork that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def warm_up(home: Path, *sources: str) -> None:
    """Sync the sources in this process, for what its forks then need not do."""
    os.environ["MLOPS_HOME"] = str(home)
    for source in sources:
        sync(source)


def run_sync(home: Path, source: str, kill_at: int, count_file: Path | None = None) -> None:
    """A sync that dies just before its `kill_at`-th change; counts them all where that never comes."""
    os.environ["MLOPS_HOME"] = str(home)
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if changes_of(event, arguments, home):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    sync(source)
    if count_file is not None:
        count_file.write_text(str(seen))


def copy_home(home: Path, copy: Path) -> None:
    """A home whose Qlib stores pass for those that were written there."""
    shutil.copytree(home, copy)
    for store in (copy / "data" / "qlib").glob("[!.]*"):
        remember_store(Settings(home=copy), store)


def in_use(home: Path) -> dict[str, bytes]:
    """Every file of the vintage in use and of its Qlib store; nothing before the first publication."""
    current = home / "data" / "current.json"
    if not current.is_file():
        return {}
    version = json.loads(current.read_text())["data_version"]
    folders = (home / "data" / kind / version for kind in ("vintages", "qlib"))
    return {f"{version}/{name}": content for folder in folders for name, content in tree(folder).items()}


def main(root: Path, points: int, *sources: str) -> None:
    """Sync all sources calmly and count the last one's changes, then kill and repeat that one at `points` of them."""
    warm_up(root / "warm", *sources)
    logging.getLogger("mlops_tasks.data.qlib.store").addHandler(logging.StreamHandler())
    logging.getLogger("mlops_tasks.data.qlib.store").setLevel(logging.INFO)
    before, calm, last = root / "before", root / "calm", sources[-1]
    for source in sources[:-1]:
        assert in_fork(lambda: run_sync(before, source, kill_at=-1)) == 0  # noqa: B023  the fork runs at once
    before.mkdir(exist_ok=True)
    copy_home(before, calm)
    ended = in_fork(lambda: run_sync(calm, last, kill_at=-1, count_file=root / "count"))
    total = int((root / "count").read_text())
    results = {}
    for point in sorted(random.Random(5).sample(range(1, total + 1), min(points, total))):
        home = root / f"killed-{point}"
        copy_home(before, home)
        killed = in_fork(lambda: run_sync(home, last, kill_at=point))  # noqa: B023
        whole = in_use(home) in (in_use(before), in_use(calm))
        after = in_fork(lambda: run_sync(home, last, kill_at=-1))  # noqa: B023
        results[point] = {"killed": killed == signal.SIGKILL, "whole": whole, "after": after}
    print(json.dumps({"calm": ended, "total": total, "points": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
