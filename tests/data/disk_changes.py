"""Which of Python's audit events change the file system: the points at which tests kill what they watch."""

import os
from pathlib import Path

CHANGES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.symlink"}


def changes_of(event: str, arguments: tuple[object, ...], home: Path) -> bool:
    """Whether an audit event changes the file system (a relative name is one inside an open folder)."""
    if event in CHANGES:
        return True
    if event != "open" or not int(str(arguments[2])) & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
        return False
    return not os.path.isabs(str(arguments[0])) or str(arguments[0]).startswith(str(home))  # noqa: PTH117
