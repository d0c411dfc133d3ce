"""Where DVC keeps its files: all of them below the data folder, which belongs to its owner alone.

By default DVC shares a "site" folder with all users of the machine, makes it writable for everybody, and keeps caches
in it, whose values it unpickles and whose paths it removes (`diskcache`). Here it gets a private one, which is empty at
each call: its content is disposable, and nothing that lay there is ever read. Configuration of the machine or
the user could move the cache elsewhere, so none is read. Only DVC's command line reports usage and looks for updates.
It is never run, and both are off in the configuration too.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mlops_tasks.files import read_json, write_text
from mlops_tasks.private import private_folder

_CONFIG = """\
[core]
    no_scm = True
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
"""
_SITE = "site_cache_dir"
_UNFINISHED = re.compile(r"\.[\w-]{22}\.tmp$")
"""The end of the name under which DVC writes a file (`dvc_objects.fs.utils.tmp_fname`)."""
_VARIABLES = ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")


@contextmanager
def own_places(root: Path) -> Iterator[Path]:
    """Prepare the DVC repository in `root`. While the block lasts, DVC uses no other places.

    The caller holds the data folder's lock.

    Raises
    ------
    ConfigError
        A folder of DVC's is a link or belongs to somebody else.
    """
    folder = private_folder(root / ".dvc")
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    private_folder(site)
    private_folder(site / "repo")  # DVC would make it with mode 0777, whatever the umask
    for name in ("tmp", "cache"):
        private_folder(folder / name)
    _configure(folder / "config", site)
    for place in (folder / "cache", root / "vintages"):
        _remove_unfinished(place)
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ |= dict.fromkeys(_VARIABLES, str(site))
    try:
        yield root
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def remove_damaged(cache: Path, pointer: Path) -> None:
    """Remove from DVC's cache each object of a pointer whose content does not match its name, an MD5."""
    listing = _object(cache, yaml.safe_load(pointer.read_text())["outs"][0]["md5"])
    names = [entry["md5"] for entry in read_json(listing)] if _is_true(listing) else []
    for path in (listing, *(_object(cache, name) for name in names)):
        if not _is_true(path):
            path.unlink(missing_ok=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed call of DVC left half written or half linked beside its place."""
    for path in folder.rglob("*.tmp"):
        if _UNFINISHED.search(path.name) and not path.is_dir():
            path.unlink()


def _configure(config: Path, site: Path) -> None:
    """Record in DVC's own file where the site folder is, for those who run `dvc` there by hand. The rest stays."""
    before = config.read_text() if config.is_file() else ""
    lines = [line for line in (before or _CONFIG).splitlines() if not line.strip().startswith(_SITE)]
    place = lines.index("[core]") if "[core]" in lines else len(lines)
    lines[place : place + 1] = ["[core]", f'    {_SITE} = "{site}"']
    text = "".join(f"{line}\n" for line in lines)
    if text != before:
        write_text(config, text)


def _object(cache: Path, name: str) -> Path:
    return cache / "files" / "md5" / name[:2] / name[2:]


def _is_true(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return digest == (path.parent.name + path.name).removesuffix(".dir")
