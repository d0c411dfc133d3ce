"""What pip does, in a line a package: which one, how large, how far it is."""

import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from mlops_tasks.supply_chain.requirements import normalised

POLL_S = 5.0
_WANTED = re.compile(r"\s*(?P<how>Collecting|Processing|Requirement already satisfied:) (?P<what>\S+)")
_FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (?P<file>\S+) \((?P<size>[^)]+)\)")
_BUILT = re.compile(r"\s*Building wheel for (?P<name>\S+) .*: started")
_UNPACKED = re.compile(r"Installing collected packages: (?P<names>.+)")
_NO_PLACE = re.compile(r"WARNING: (Location|Url) .+ is ignored")
"""A place to look for files that is configured, and not there on this machine: nobody has to do anything."""


class PipProgress:
    """Tells what matters of pip's lines: each package as its file is there, and how many are unpacked.

    Parameters
    ----------
    names
        Of the packages to be installed, normalised.
    say
        Takes a line.
    """

    def __init__(self, names: Collection[str], say: Callable[[str], None]) -> None:
        self.names = frozenset(names)
        self.say = say
        self._seen = 0
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def run(self, command: list[str]) -> bool:
        """Run pip; whether it installed them. What it complains of is passed on to standard error."""
        began, pipe = time.monotonic(), subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, errors="replace", bufsize=1) as process:
            assert process.stdout is not None and process.stderr is not None
            complaints = threading.Thread(target=_pass_on, args=(process.stderr,))
            complaints.start()
            for line in process.stdout:
                self.tell(line.rstrip())
            complaints.join()
        self._ended.set()
        if self._watcher is not None:
            self._watcher.join()
        if process.returncode == 0 and self._watcher is not None:
            self.say(f"{len(self.names)} packages are installed after {time.monotonic() - began:.0f} s")
        return process.returncode == 0

    def tell(self, line: str) -> None:
        """Say what a line of pip means, if it means anything."""
        if wanted := _WANTED.match(line):
            self._seen += 1
            if wanted["how"] == "Processing":
                path = Path(wanted["what"])
                self._file(path.name, _size(path.stat().st_size) if path.is_file() else "from a folder")
        elif fetched := _FETCHED.match(line):
            if not fetched["file"].endswith(".metadata"):
                self._file(fetched["file"].rpartition("/")[2], fetched["size"])
        elif built := _BUILT.match(line):
            self.say(f"building {built['name']}, which is published as source alone")
        elif unpacked := _UNPACKED.match(line):
            self.say(f"unpacking {unpacked['names'].count(',') + 1} packages")
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def _file(self, name: str, size: str) -> None:
        self.say(f"[{self._seen:>{len(str(len(self.names)))}}/{len(self.names)}] {name}, {size}")

    def _watch(self) -> None:
        before = -1
        while not self._ended.wait(POLL_S):
            now = len(self.names & _installed())
            if now != before:
                self.say(f"unpacked {now} of {len(self.names)}")
            before = now


def _pass_on(lines: IO[str]) -> None:
    for line in lines:
        if not _NO_PLACE.match(line):
            sys.stderr.write(line)
            sys.stderr.flush()


def _installed() -> set[str]:
    """Normalised names of what is in this environment."""
    folders = Path(sysconfig.get_path("purelib")).glob("*.dist-info")
    return {normalised(folder.name.split("-")[0]) for folder in folders}


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def say(line: str) -> None:
    """Print it at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
