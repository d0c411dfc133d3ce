"""A sync killed with SIGKILL at its n-th change of the file system, then run again: `python -m tests.data.killing`.

Each try is a fork of a process that has imported everything and used nothing, so that a kill point costs a sync, not
the imports. Arguments: a folder for the homes, the source, and how many kill points to spread over the sync. The last
line of output is JSON: for each kill point whether the try was killed, and the exit status of the run after it.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import dvc.repo
import great_expectations  # noqa: F401  the fork must not pay for the import

from tests.data.market import sync

CHANGES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.symlink"}


def changes_of(event: str, arguments: tuple[object, ...], home: Path) -> bool:
    """Whether an audit event changes the file system (a relative name is one inside a folder being removed)."""
    if event in CHANGES:
        return True
    return event == "open" and str(arguments[0]).startswith(str(home)) and bool(int(str(arguments[2])) & os.O_CREAT)


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


def main(root: Path, source: str, points: int) -> None:
    """Count a calm sync's changes, then kill and repeat at `points` of them."""
    assert dvc.repo
    calm = in_fork(lambda: run_sync(root / "calm", source, kill_at=-1, count_file=root / "count"))
    total = int((root / "count").read_text())
    chosen = sorted(random.Random(5).sample(range(1, total + 1), min(points, total)))
    results = {}
    for point in chosen:
        home = root / f"killed-{point}"
        killed = in_fork(lambda: run_sync(home, source, kill_at=point))  # noqa: B023  the fork runs at once
        after = in_fork(lambda: run_sync(home, source, kill_at=-1))  # noqa: B023
        results[point] = {"killed": killed == signal.SIGKILL, "after": after}
    print(json.dumps({"calm": calm, "total": total, "points": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
