"""Nothing below MLOPS_HOME can be read by another user of the machine, whatever the shell's umask is."""

import configparser
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.private import make_private, open_to_others, private_folder
from mlops_tasks.stack import doctor
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.keeper import configuration_text
from mlops_tasks.stack.services import services

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can enter, as /srv is; pytest's own cannot be entered by others."""
    folder = Path(tempfile.mkdtemp(prefix="alphaops_test_"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run(home: Path, *command: str, umask: int = 0) -> subprocess.CompletedProcess[str]:
    """A command of the stack under a careless umask."""
    environment = {**os.environ, "MLOPS_HOME": str(home)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, env=environment, umask=umask, capture_output=True, text=True, check=False)


def modes(home: Path) -> dict[str, int]:
    return {str(path.relative_to(home)): stat.S_IMODE(path.lstat().st_mode) for path in (home, *home.rglob("*"))}


def reached_by_a_stranger(home: Path) -> list[str]:
    """What another user's process can list, open or enter of a home, known names and all: a fork that becomes it."""
    names = sorted(str(path) for path in (home, *home.rglob("*")))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        reached = [name for name in names if _opens(name)]
        os.write(writer, "\n".join(reached).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = answer.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    return found


def _opens(name: str) -> bool:
    """Whether this process may read a file, or the names in a folder."""
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_every_process_makes_files_for_its_owner_alone(place: Path) -> None:
    """A stage under a umask of 0, in a home that is not there yet: folders 0700, files, locks and sockets 0600."""
    home = place / "home"
    done = run(home, "mlops_tasks", "run", "tests.security.stages:make_files")
    assert done.returncode == 0, done.stdout
    assert '"umask": 63' in done.stdout
    assert {name: each for name, each in modes(home).items() if each & 0o077} == {}
    if os.geteuid() == 0:
        assert reached_by_a_stranger(home) == []


def test_the_stack_hands_its_umask_down(place: Path) -> None:
    """So do a command of the stack and the keeper with every service."""
    settings = Settings(home=place / "home")
    ensure_credentials(settings)
    done = run(settings.home, "mlops_tasks.stack", "run", "--", "sh", "-c", "umask")
    assert done.stdout.strip() == "0077", done.stderr
    assert configuration_text(settings).count("umask=077") == 1 + len(services(settings))  # the keeper too


def test_the_logs_of_airflow_are_private() -> None:
    """Airflow sets the modes of its log files by itself."""
    parser = configparser.RawConfigParser()
    parser.read(PROJECT / "airflow.cfg")
    assert parser["logging"]["file_task_handler_new_folder_permissions"] == "0o700"
    assert parser["logging"]["file_task_handler_new_file_permissions"] == "0o600"


@as_root
def test_a_stranger_reads_nothing_of_a_home_that_was_closed(place: Path) -> None:
    """Another user's process reads an open home; once it is closed, not a name."""
    home = place / "home"
    for name in ("airflow/airflow.db", "mlflow/mlflow.db", "state/state.db", "features/p.parquet", "scores/s.parquet"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("secret")
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert len(reached_by_a_stranger(home)) == 11
    assert make_private(home) == 11
    assert reached_by_a_stranger(home) == []
    assert {each & 0o077 for each in modes(home).values()} == {0}
    assert make_private(home) == 0


def test_closing_a_home_follows_no_link(tmp_path: Path) -> None:
    """What a link in the home leads to keeps its permissions."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "theirs").write_text("")
    for path in (elsewhere, elsewhere / "theirs"):
        path.chmod(0o755)
    home.mkdir()
    (home / "bars").symlink_to(elsewhere)
    home.chmod(0o755)
    assert make_private(home) == 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in (elsewhere, elsewhere / "theirs")} == {0o755}


@as_root
def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner could put anything into it: named, with the remedy; so is a private folder that is a link."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=r"belongs to user 65534: give it to the user who runs this \(chown -R\)"):
        make_private(home)
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(ConfigError, match="is a link or belongs to somebody else"):
        private_folder(tmp_path / "link")


@pytest.mark.parametrize("what", ["", "secrets", "secrets/token", "run/keeper.sock", "run/.lock", "data/.dvc"])
def test_the_doctor_finds_what_is_open(tmp_path: Path, what: str) -> None:
    """The home, a folder, a secret, a socket or a lock that others may use is an error, with the remedy that works."""
    home = tmp_path / "home"
    for folder in ("secrets", "run", "data/.dvc"):
        (home / folder).mkdir(parents=True)
    for name in ("secrets/token", "run/.lock"):
        (home / name).write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "run" / "keeper.sock"))
    make_private(home)
    assert doctor._home(home).state == "ok"
    (home / what).chmod(0o755)
    finding = doctor._home(home)
    assert (finding.state, str(home / what) in finding.detail) == ("error", True)
    subprocess.run(finding.remedy.rpartition("at once: ")[2].split(), check=True)
    assert open_to_others(home) == []


def test_the_container_is_not_root() -> None:
    """The image's last USER is not root, its home is its owner's alone, and compose does not change the user."""
    lines = (PROJECT / "docker" / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1] not in {"root", "0", "0:0"}
    assert any(re.search(r"install -d -m 0700 .*/var/lib/alphaops", line) for line in lines)
    compose = (PROJECT / "docker" / "compose.yaml").read_text()
    assert not re.search(r"^\s*(user|privileged):", compose, re.MULTILINE) and "no-new-privileges:true" in compose


@as_root
def test_a_container_refuses_to_be_root(place: Path) -> None:
    """`attend` ends before anything is started, and says how else."""
    done = run(place / "home", "mlops_tasks.stack", "attend")
    assert done.returncode == 1
    assert "this container runs as root" in done.stderr and "MLOPS_STACK__ALLOW_ROOT=true" in done.stderr
    assert not (place / "home" / "run").exists()


@as_root
def test_make_up_as_root_warns_once(place: Path) -> None:
    """One plain line with the remedy, before anything else."""
    done = run(place / "home", "mlops_tasks.stack", "up", "--source=/nowhere.parquet")
    assert done.returncode == 1 and (done.stdout + done.stderr).count("warning: this runs as root") == 1
    assert "chown -R" in done.stdout
