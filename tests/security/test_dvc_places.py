"""DVC shares nothing with other users of the machine, and believes nothing that lay on the disk before."""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.data.dvc_places import own_places
from mlops_tasks.data.snapshots import checkout_vintage, pin_vintage
from mlops_tasks.data.vintages import write_vintage
from mlops_tasks.errors import ConfigError
from tests.data.market import make_bars, save
from tests.features.market import awkward_bars

SITE_SHARED = Path("/var/tmp/dvc")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_sync_touches_nothing_outside_the_home(tmp_path: Path) -> None:
    """All stages, under a umask of 0, where the user's and the machine's DVC are told to share everything.

    What is opened, made and removed lies in the home; the folders that DVC gives to everybody are nobody else's.
    """
    home, shared = tmp_path / "home", tmp_path / "shared"
    for name in ("user", "config", "tmp", "site", "here"):
        (shared / name).mkdir(parents=True)
    (shared / "config" / "config").write_text(f"[cache]\n    dir = {shared / 'cache'}\n")
    before = sorted(SITE_SHARED.rglob("*")) if SITE_SHARED.exists() else None
    environment = {
        "MLOPS_HOME": str(home),
        "MLOPS_DATA__ALLOWED_FOLDERS": str(tmp_path),
        "HOME": str(shared / "user"),
        "TMPDIR": str(shared / "tmp"),
        "DVC_SITE_CACHE_DIR": str(shared / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(shared / "config"),
        "DVC_SYSTEM_CONFIG_DIR": str(shared / "config"),
        "PYTHONPATH": str(PROJECT),
    }
    source = save(make_bars(), tmp_path / "bars.parquet")
    command = [sys.executable, "-m", "tests.security.watched_sync", str(source)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, cwd=shared / "here", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout.splitlines()[-1])
    allowed = (str(home), str(shared / "tmp"), str(shared / "user"), "/dev/", "/proc/", sys.prefix)
    assert [path for path in opened if not path.startswith(allowed)] == []
    assert any(".dvc/site" in path for path in opened), "the databases of DVC were seen"
    assert not [path for path in opened if path.startswith(str(shared)) and "dvc" in path.lower()]
    assert not (shared / "cache").exists() and not list(shared.glob("site/*")) and not list(shared.glob("here/*"))
    assert (sorted(SITE_SHARED.rglob("*")) if SITE_SHARED.exists() else None) == before
    open_folders = [path for path in (home, *home.rglob("*")) if path.is_dir() and mode(path) & 0o077]
    writable = [path for path in home.rglob("*") if not path.is_symlink() and mode(path) & 0o022]
    assert open_folders == [] and writable == []


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with a pinned vintage."""
    settings = Settings(home=tmp_path_factory.mktemp("pinned") / "home")
    vintage = write_vintage(settings, awkward_bars(instruments=2, days=120), None, {"source": "made"})
    pin_vintage(settings, vintage.data_version)
    return settings.home, vintage.data_version


class Planted:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_what_a_stranger_planted_is_not_unpickled(pinned: tuple[Path, str], tmp_path: Path) -> None:
    """A cache of DVC's that holds code, under every name that DVC looks at, is gone before DVC begins."""
    import diskcache

    home, version = tmp_path / "home", pinned[1]
    shutil.copytree(pinned[0], home)
    settings, proof = Settings(home=home), tmp_path / "executed"
    with own_places(settings.data_dir) as root:
        from dvc.repo import Repo

        with Repo(str(root)) as repository:
            site = Path(repository.site_cache_dir)
    for name in ("links", "hashes/local"):
        with diskcache.Cache(str(site / name)) as cache:
            for key in (f"vintages/{version}", str(settings.data_dir / "vintages" / version)):
                cache[key] = Planted(proof)
    assert pickle.loads(pickle.dumps(1)) == 1
    site.parent.chmod(0o777)
    shutil.rmtree(settings.data_dir / "vintages" / version)
    checkout_vintage(settings, version)
    assert not proof.exists()
    assert [mode(path) for path in (site.parents[2], site.parents[1], site.parent)] == [0o700] * 3


@pytest.mark.parametrize("name", ["site", "site/repo", "tmp"])
def test_a_planted_link_is_not_followed(pinned: tuple[Path, str], tmp_path: Path, name: str) -> None:
    """A folder of DVC's that leads elsewhere is refused or replaced; what it led to stays as it was."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    shutil.copytree(pinned[0], home)
    (elsewhere / "repo").mkdir(parents=True)
    (elsewhere / "repo" / "precious").write_text("kept")
    folder = home / "data" / ".dvc" / name
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)
    shutil.rmtree(home / "data" / "vintages" / pinned[1])
    try:
        checkout_vintage(Settings(home=home), pinned[1])
    except ConfigError as error:
        assert str(folder) in str(error)
    else:
        assert not folder.is_symlink()
    assert [path.relative_to(elsewhere).as_posix() for path in sorted(elsewhere.rglob("*"))] == [
        "repo",
        "repo/precious",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(pinned: tuple[Path, str], tmp_path: Path) -> None:
    """DVC's folder that a stranger owns is refused by name."""
    home = tmp_path / "home"
    shutil.copytree(pinned[0], home)
    os.chown(home / "data" / ".dvc", 65534, 65534)
    shutil.rmtree(home / "data" / "vintages" / pinned[1])
    with pytest.raises(ConfigError, match=r"\.dvc is a link or belongs to somebody else"):
        checkout_vintage(Settings(home=home), pinned[1])


def test_dvc_by_hand_uses_the_private_folder_too(pinned: tuple[Path, str], tmp_path: Path) -> None:
    """Its own configuration names the folder, wherever the home is by now; what a user added to it stays."""
    home = tmp_path / "home"
    shutil.copytree(pinned[0], home)
    config = home / "data" / ".dvc" / "config"
    config.write_text(config.read_text() + '[remote "backup"]\n    url = /srv/backup\n')
    with own_places(home / "data"):
        pass
    text = config.read_text()
    assert f'site_cache_dir = "{home}/data/.dvc/site"' in text and text.count("site_cache_dir") == 1
    assert "url = /srv/backup" in text and "no_scm = True" in text
    from dvc.repo import Repo

    with Repo(str(home / "data")) as repository:
        assert Path(repository.site_cache_dir).is_relative_to(home)
