"""Without room a sync fails clearly and harmlessly."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import programs
from tests.data.market import make_bars, save, tree

MOUNT = 'mount -t tmpfs -o size=32m small "$0" && exec "$@"'
ON_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT]
"""Runs a command (after the mount point) that sees a small file system of its own."""


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*ON_SMALL_DISK, folder, "true"], capture_output=True, check=False).returncode == 0


# Every user can limit the size of files; a real small disk needs user namespaces.
WAYS = {"limit": "0,30000"} | ({"disk": "0,40000,200000,300000"} if may_mount() else {})


@pytest.mark.suite_pages
@pytest.mark.parametrize("how", WAYS)
def test_a_sync_without_room_says_so_and_succeeds_with_room(how: str, tmp_path: Path) -> None:
    """Whatever is written when room runs out, the error names place, free bytes and remedy, what was in use is whole,
    and with room the sync ends as if nothing had been."""
    bars = make_bars(days=12)
    dates = sorted(bars["Date"].unique())
    sources = [save(bars[bars["Date"] <= dates[n - 1]], tmp_path / f"{n}.parquet") for n in (10, 11, 12)]
    disk, seen = tmp_path / "disk", tmp_path / "seen"
    disk.mkdir()
    seen.mkdir()
    words = [how, disk, seen, WAYS[how], *sources]
    if how == "disk":
        command = [*ON_SMALL_DISK, disk, sys.executable, "-m", "tests.data.full_disk", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    else:
        done = programs.run(programs.module("tests.data.full_disk"), *words)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    failed = {amount: each for amount, each in outcomes.items() if each["error"]}
    assert len(failed) >= 2, outcomes
    for amount, outcome in failed.items():
        assert outcome["error"].startswith(f"StoreError: {disk}/home/"), outcome
        assert "no room to write it" in outcome["error"] and "bytes are free there" in outcome["error"]
        assert outcome["whole"], amount
    assert {outcome["after"] for outcome in outcomes.values()} == {0}
    first, *others = (tree(seen / amount) for amount in outcomes)
    assert len(first) > 20 and all(other == first for other in others)
