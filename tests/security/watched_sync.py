"""A whole sync that writes down what it opens: `python -m tests.security.watched_sync <source>`.

The last line of output is a JSON list: files that were opened to write, folders and links that were made, what was
renamed or removed, and databases that were opened, each an absolute path. A name that is none is one in a folder that
was opened before.
"""

import json
import os
import sys

from mlops_tasks.private import be_private
from tests.data.disk_changes import CHANGES
from tests.data.market import sync

seen: set[str] = set()


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note what changes the file system, and every database."""
    writes = event == "open" and int(str(arguments[2] or 0)) & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or event == "sqlite3.connect" or writes:
        name = str(arguments[0])
        if name.startswith("/"):
            seen.add(name)


if __name__ == "__main__":
    os.umask(0)
    be_private()
    sys.addaudithook(watch)
    sync(sys.argv[1])
    print(json.dumps(sorted(seen)))
