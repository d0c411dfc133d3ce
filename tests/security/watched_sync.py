"""A whole sync that writes down what it opens: `python -m tests.security.watched_sync <source>`.

The last line of output is a JSON list: files that were opened to write, folders and links that were made, what was
renamed or removed, and databases that were opened, each an absolute path.
"""

import json
import os
import sys

from mlops_tasks.private import be_private
from tests.data.disk_changes import CHANGES
from tests.data.market import sync

seen: set[str] = set()


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note what changes the file system, and every database; a number is a folder or file that was opened before."""
    writes = event == "open" and int(str(arguments[2] or 0)) & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    if (event in CHANGES or event == "sqlite3.connect" or writes) and isinstance(arguments[0], str | os.PathLike):
        seen.add(os.path.abspath(os.fspath(arguments[0])))  # noqa: PTH100  may not open anything itself


if __name__ == "__main__":
    os.umask(0)
    be_private()
    sys.addaudithook(watch)
    sync(sys.argv[1])
    print(json.dumps(sorted(seen)))
