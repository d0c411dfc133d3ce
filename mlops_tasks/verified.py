"""What files were found to hold: each is read for that once, and again when anything about it has changed.

`<home>/verified.txt` carries it from process to process, a line a finding, only ever added to. A file is known by its
device, inode, size and times; the time of its inode's last change cannot be set by hand, so content that was changed is
read again whatever else was put back. What is lost of it, or cannot be read, costs a second look and no more.
"""

import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from mlops_tasks.files import digest_of_file
from mlops_tasks.private import OTHERS

log = logging.getLogger(__name__)

MEMORY = "verified.txt"
_LARGEST = 1 << 24
"""Bytes after which the memory begins anew: about 100,000 files."""
_TICK_S = 0.02
"""Changes closer together than this may bear the same time."""


class VerifiedFiles:
    """The memory of one home."""

    def __init__(self, home: Path) -> None:
        self.path = home / MEMORY
        self._digests: dict[str, str] = {}
        self._facts: set[tuple[str, str]] = set()
        self._read = 0

    def has(self, path: Path, digest: str, of: Callable[[Path], str] = digest_of_file) -> bool:
        """Whether a file has this digest (`of` says how to compute it); what is remembered can confirm it only."""
        return self.digest(path, of) == digest or self._look(path, of) == digest

    def digest(self, path: Path, of: Callable[[Path], str] = digest_of_file) -> str:
        """The digest of a file: as it was read before where the file is the same, else read now. OSError as reading."""
        identity = _identity(path)
        if identity not in self._digests:
            self._catch_up()
        return self._digests.get(identity) or self._look(path, of)

    def remember(self, path: Path, digest: str) -> None:
        """Spare the first look at a file that this process has just written or read, and knows the digest of."""
        identity = _identity(path)
        self._digests[identity] = digest
        self._add("file", identity, digest)

    def _look(self, path: Path, of: Callable[[Path], str]) -> str:
        identity = _identity(path)
        if abs(time.time() - path.stat().st_ctime) < _TICK_S:  # else a change that follows at once could look the same
            time.sleep(_TICK_S)
        found = of(path)
        if _identity(path) == identity:
            self.remember(path, found)
        return found

    def holds(self, digest: str, fact: str, look: Callable[[], bool]) -> bool:
        """Whether something is true of content with this digest; `look` finds out where nobody has seen it before."""
        if (digest, fact) not in self._facts:
            self._catch_up()
        if (digest, fact) in self._facts:
            return True
        if not look():
            return False
        self.note(digest, fact)
        return True

    def knows(self, digest: str, fact: str) -> bool:
        """Whether it was seen to be true."""
        return self.holds(digest, fact, lambda: False)

    def note(self, digest: str, fact: str) -> None:
        """Remember that something is true of this content."""
        self._facts.add((digest, fact))
        self._add("fact", digest, fact)

    def _add(self, *words: str) -> None:
        line = f"{' '.join(words)}\n"
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        except OSError as error:
            log.debug("%s is not remembered: %s", line, error)

    def _catch_up(self) -> None:
        """Read what this and other processes have added since the last look, where only its owner could add to it."""
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                status = os.fstat(file.fileno())
                file.seek(self._read if status.st_size > self._read else 0)
                added = file.read() if status.st_size != self._read else b""
        except OSError:
            return
        if status.st_uid != os.geteuid() or status.st_mode & OTHERS:
            log.warning("%s is not used: others may write it; remove it", self.path)
            return
        if status.st_size > _LARGEST:
            self.path.unlink(missing_ok=True)
        self._read = status.st_size
        for line in added.decode(errors="replace").splitlines():
            kind, _, rest = line.partition(" ")
            subject, _, found = rest.partition(" ")
            if kind == "file" and found:
                self._digests[subject] = found
            elif kind == "fact" and found:
                self._facts.add((subject, found))


@lru_cache(maxsize=8)
def verified_files(home: Path) -> VerifiedFiles:
    """The memory of a home, one in a process."""
    return VerifiedFiles(home)


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
