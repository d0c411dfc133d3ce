"""A stage for the tests of file modes."""

import os
import socket
from pathlib import Path

from mlops_tasks.config import load_settings
from mlops_tasks.files import folder_lock, new_folder, write_json


def make_files() -> dict[str, int]:
    """One of each kind of file that the operation makes, in a home that is not there yet; the umask."""
    home = load_settings().home
    write_json(home / "data" / "current.json", {})
    with new_folder(home / "features" / "version") as folder:
        (folder / "plain.txt").write_text("")
    with folder_lock(home / "training"):
        pass
    Path(home, "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "run" / "s"))
    umask = os.umask(0)
    os.umask(umask)
    return {"umask": umask}
