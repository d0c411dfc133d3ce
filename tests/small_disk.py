"""A small file system of its own for a command, which can be filled."""

import subprocess
import tempfile
from pathlib import Path


def on_small_disk(folder: Path | str, megabytes: int = 32) -> list[str]:
    """What to put before a command, so that it, and nobody else, sees an empty file system of this size in a folder."""
    mount = f'mount -t tmpfs -o size={megabytes}m small "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]


def may_mount() -> bool:
    """Whether the machine has user namespaces, which this needs."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*on_small_disk(folder), "true"], capture_output=True, check=False).returncode == 0
