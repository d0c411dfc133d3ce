"""Syncs that run out of room, then run again with room: `python -m tests.data.full_disk`.

Arguments: how room runs out (`disk`: the file system is filled but for some bytes; `limit`: no file may grow beyond
some bytes), a folder on that disk, a folder for what is observed, the amounts of bytes, then the sources: all but the
last are synced with room, the last one without, and with room again. The last line of output is JSON: for each
amount the error, whether what was in use is whole, and the exit status with room.
"""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

from tests.data.killing import in_fork, in_use, run_sync, warm_up
from tests.data.market import sync


def fill(folder: Path, left: int) -> Path:
    """A file that leaves `left` bytes of the disk (to the block)."""
    path = folder / "filler"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - left)
    return path


def sync_without_room(how: str, home: Path, source: str, left: int, said: Path) -> None:
    """A sync whose error goes to the file `said`."""
    os.environ["MLOPS_HOME"] = str(home)
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))
    try:
        sync(source)
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        said.write_text(f"{type(error).__name__}: {error}")
        raise


def main(how: str, disk: Path, seen: Path, amounts: str, *sources: str) -> None:
    """Each amount in turn, each with a home of its own."""
    warm_up(seen / "warm", *sources)
    base, home, last = seen / "base", disk / "home", sources[-1]
    for source in sources[:-1]:
        assert in_fork(lambda: run_sync(base, source, kill_at=-1)) == 0  # noqa: B023  the fork runs at once
    results = {}
    for amount in map(int, amounts.split(",")):
        shutil.copytree(base, home)
        said = seen / f"{amount}.txt"
        filler = fill(disk, amount) if how == "disk" else None
        in_fork(lambda: sync_without_room(how, home, last, amount, said))  # noqa: B023
        whole = in_use(home) == in_use(base)
        if filler:
            filler.unlink()
        after = in_fork(lambda: run_sync(home, last, kill_at=-1))
        results[amount] = {"error": said.read_text() if said.is_file() else "", "whole": whole, "after": after}
        shutil.copytree(home / "data", seen / str(amount))
        shutil.rmtree(home)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
