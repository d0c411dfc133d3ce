"""What a form names as source or universe has a name in the settings or lies below an allowed folder."""

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import PROJECT, load_settings
from mlops_tasks.data.inspection import difference
from mlops_tasks.data.qlib.store import qlib_store_path
from mlops_tasks.data.revisions.approvals import find_approval
from mlops_tasks.data.revisions.diff import diff_path
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.tasks import compare_vintages_task, read_source_task, validate_bars_task, write_qlib_store_task
from mlops_tasks.data.validation.staging import quarantine_path, staging_path
from mlops_tasks.errors import SourceError, StoreError
from mlops_tasks.evaluation.tasks import evaluate_model_task
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.features.tasks import compute_features_task
from mlops_tasks.registry.mlflow_pages import NoRunError, training_page
from mlops_tasks.registry.studies import log_study
from mlops_tasks.training.certificate import certificate_path
from tests.data.market import make_bars, save
from tests.security.conftest import Desk

REFUSED = "rule allowed_source"

ELSEWHERE: dict[str, Callable[[Desk], str]] = {
    "own environment": lambda desk: "/proc/self/environ",
    "task's environment": lambda desk: f"/proc/{os.getppid()}/environ",
    "environment by thread": lambda desk: f"/proc/thread-self/../../{os.getpid()}/environ",
    "open file": lambda desk: "/dev/fd/0",
    "device": lambda desk: "/dev/zero",
    "kernel": lambda desk: "/sys/kernel/notes",
    "scoring token": lambda desk: str(desk.settings.secrets_dir / "scoring_token"),
    "secrets": lambda desk: str(desk.settings.secrets_dir),
    "settings": lambda desk: str(desk.settings.home / "settings.yaml"),
    "whole home": lambda desk: str(desk.settings.home),
    "airflow.cfg": lambda desk: str(PROJECT / "airflow.cfg"),
    "relative": lambda desk: "airflow.cfg",
    "passwd": lambda desk: "/etc/passwd",
    "root": lambda desk: "/",
    "person's home": lambda desk: "~/.ssh/id_rsa",
    "nobody's home": lambda desk: "~nobody-of-this-name/x",
    "dots": lambda desk: f"{desk.folder}/../outside/bars.csv",
    "dots to the secrets": lambda desk: f"{desk.folder}/../home/secrets/scoring_token",
    "twice slash": lambda desk: f"/{desk.folder}/..//outside//bars.csv",
    "percent": lambda desk: f"{desk.folder}/%2e%2e/outside/bars.csv",
    "full width": lambda desk: f"{desk.folder}/\uff0e\uff0e\uff0foutside\uff0fbars.csv",
    "address": lambda desk: f"file://{desk.outside}/bars.csv",
    "nul": lambda desk: f"{desk.folder}/bars.csv\x00/../../outside/bars.csv",
    "line break": lambda desk: f"{desk.folder}/\nERROR root: forged/../bars.csv",
    "terminal": lambda desk: f"{desk.folder}/\x1b[2J/../bars.csv",
    "too long": lambda desk: "/" + "a" * 100_000,
    "sibling with the folder's name": lambda desk: f"{desk.folder}2/bars.csv",
    "hidden": lambda desk: str(desk.folder / ".ssh" / "bars.csv"),
}


def plant(desk: Desk) -> None:
    """Good bars wherever they could be read if the way there were open."""
    for path in (desk.outside, desk.folder.with_name("desk2"), desk.folder / ".ssh"):
        save(make_bars(days=3), path / "bars.csv")


@pytest.mark.parametrize("field", ["source", "universe"])
def test_what_lies_elsewhere_is_not_opened(field: str, desk: Desk) -> None:
    """Neither as source nor as universe; the message is in one printable line and holds nothing of the file."""
    plant(desk)
    for name, path_of in ELSEWHERE.items():
        with pytest.raises(SourceError) as caught:
            read_source_task(**{field: path_of(desk)})
        message = str(caught.value)
        # A percent sign and full-width dots are characters like others: there is just no such file.
        expected = "_exists" if name in ("percent", "full width") else REFUSED
        assert expected in message, name
        assert message.isprintable() and len(message) < 1000, name


def test_what_exists_and_what_does_not_are_refused_alike(desk: Desk) -> None:
    """Nobody finds out by a form what is there."""
    plant(desk)
    messages = []
    for name in ("bars.csv", "nope.csv"):
        with pytest.raises(SourceError) as caught:
            read_source_task(source=str(desk.outside / name))
        messages.append(str(caught.value).replace(name, ""))
    assert messages[0] == messages[1]


def test_what_make_up_chose_is_read_and_its_neighbours(desk: Desk) -> None:
    """The configured source and universe, and other files beside them, work as ever; so does the synthetic market."""
    save(make_bars(days=4), desk.folder / "more" / "bars.parquet")
    (desk.folder / "others.txt").write_text("S01\t2019-01-01\t2030-01-01\n")
    assert read_source_task()["rows"] == 12
    assert read_source_task(source=str(desk.folder / "more"), universe=str(desk.folder / "others.txt"))["rows"] == 16
    assert read_source_task(source=f"{desk.folder}/more/../bars.csv")["rows"] == 12
    (desk.folder / "synthetic.txt").write_text("SYN000\t2019-01-01\t2030-01-01\n")
    assert read_source_task(source="synthetic", universe=str(desk.folder / "synthetic.txt"))["rows"] > 0


def test_the_settings_open_further_folders(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data.allowed_folders` takes the place of the default; the configured files stay, home and secrets never open."""
    plant(desk)
    save(make_bars(days=4), desk.folder / "others.csv")
    monkeypatch.setenv("MLOPS_DATA__ALLOWED_FOLDERS", f"{desk.outside},{desk.settings.home.parent}/none")
    assert read_source_task(source=str(desk.outside))["rows"] == 12
    assert read_source_task()["rows"] == 12
    with pytest.raises(SourceError, match=REFUSED):
        read_source_task(source=str(desk.folder / "others.csv"))
    monkeypatch.setenv("MLOPS_DATA__ALLOWED_FOLDERS", "/")
    assert read_source_task(source=str(desk.folder / "others.csv"))["rows"] == 16
    for path in (
        desk.settings.secrets_dir / "scoring_token",
        desk.settings.home / "settings.yaml",
        "/proc/self/environ",
    ):
        with pytest.raises(SourceError, match=REFUSED):
            read_source_task(universe=str(path))
    monkeypatch.setenv("MLOPS_DATA__ALLOWED_FOLDERS", str(desk.settings.home))
    allowed = AllowedFiles.of(load_settings())
    assert allowed.check(desk.settings.home / "settings.yaml") == desk.settings.home / "settings.yaml"
    with pytest.raises(SourceError, match=REFUSED):
        allowed.check(desk.settings.secrets_dir / "scoring_token")


def test_a_source_beside_the_operation_opens_itself_alone(desk: Desk) -> None:
    """Where the whole operation lies in the source's folder, as in a person's own, its other files stay shut."""
    top = desk.settings.home.parent
    data = desk.settings.data.model_copy(update={"source": str(save(make_bars(days=3), top / "bars.csv"))})
    allowed = AllowedFiles.of(desk.settings.model_copy(update={"data": data}))
    assert allowed.check(top / "bars.csv") == top / "bars.csv"
    with pytest.raises(SourceError, match=REFUSED):
        allowed.check(save(make_bars(days=3), top / "others.csv"))


def test_a_folder_as_source_opens_itself_alone(desk: Desk) -> None:
    """What lies beside a configured folder of bars stays shut, as does a folder that is not there (any more)."""
    save(make_bars(days=3), desk.folder / "daily" / "bars.csv")
    for source in ("daily", "gone"):
        data = desk.settings.data.model_copy(update={"source": str(desk.folder / source), "universe": None})
        allowed = AllowedFiles.of(desk.settings.model_copy(update={"data": data}))
        with pytest.raises(SourceError, match=REFUSED):
            allowed.check(desk.folder / "bars.csv")
    assert allowed.check(desk.folder / "gone" / "bars.csv").name == "bars.csv"


def test_from_a_folder_that_is_gone_no_relative_path_leads_anywhere(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system itself cannot say where it would lead."""
    (tmp_path / "gone").mkdir()
    allowed = AllowedFiles.of(desk.settings)
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SourceError, match=REFUSED):
        allowed.check("bars.csv")


@pytest.mark.parametrize("field", ["source", "universe"])
def test_a_link_that_leads_out_is_not_followed(field: str, desk: Desk) -> None:
    """Of a file, of a folder, of a link to a link, into /proc and into the secrets; a link that stays inside is."""
    plant(desk)
    targets = [desk.outside / "bars.csv", Path("/proc/self/environ"), desk.settings.secrets_dir / "scoring_token"]
    for number, target in enumerate(targets):
        (desk.folder / f"{number}.csv").symlink_to(target)
    (desk.folder / "again.csv").symlink_to(desk.folder / "0.csv")
    (desk.folder / "loop.csv").symlink_to(desk.folder / "loop.csv")
    (desk.folder / "away").symlink_to(desk.outside)
    (desk.folder / "top").symlink_to("/")
    for path in ("0.csv", "1.csv", "2.csv", "again.csv", "loop.csv", "away/bars.csv", "top/etc/passwd"):
        with pytest.raises(SourceError, match=REFUSED):
            read_source_task(**{field: str(desk.folder / path)})
    (desk.folder / "same.csv").symlink_to(desk.folder / "bars.csv")
    assert read_source_task(source=str(desk.folder / "same.csv"))["rows"] == 12


def test_a_folder_with_a_link_that_leads_out_is_refused(desk: Desk) -> None:
    """A file that was linked into a folder of bars is not read along with them; its target stays unnamed."""
    plant(desk)
    folder = desk.folder / "daily"
    save(make_bars(days=3), folder / "a.csv")
    (folder / "b.csv").symlink_to(desk.outside / "bars.csv")
    with pytest.raises(SourceError, match=REFUSED) as caught:
        read_source_task(source=str(folder))
    assert "outside" not in str(caught.value)


def test_what_is_no_regular_file_keeps_nobody_waiting(desk: Desk) -> None:
    """A pipe, a socket or a folder in a file's place is refused at once."""
    (desk.folder / "folder.csv").mkdir()
    os.mkfifo(desk.folder / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(desk.folder / "socket.csv"))
        for name in ("folder.csv", "pipe.csv", "socket.csv"):
            with pytest.raises(SourceError, match="rule regular_file"):
                read_source_task(universe=str(desk.folder / name))
            with pytest.raises(SourceError, match="rule source_exists"):
                read_source_task(source=str(desk.folder / name))


SWAPS: dict[str, Callable[[Path, Desk], None]] = {
    "pipe": lambda path, desk: os.mkfifo(path),
    "link": lambda path, desk: path.symlink_to(desk.outside / "bars.csv"),
    "link to a pipe": lambda path, desk: path.symlink_to(desk.outside / "pipe"),
}


def test_what_is_swapped_in_after_the_check_is_not_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe or a link that takes the file's place between the look at it and its opening is not read, and nothing
    waits; what the link leads to is not even opened."""
    plant(desk)
    os.mkfifo(desk.outside / "pipe")
    writer = threading.Thread(target=lambda: (desk.outside / "pipe").open("w").close(), daemon=True)
    writer.start()
    path, opened = desk.folder / "others.txt", os.open
    for name, swap in SWAPS.items():
        path.unlink(missing_ok=True)
        path.write_text("S00\t2019-01-01\t2030-01-01\n")

        def swapped(target: Path, flags: int, *more: int, swap: Callable[[Path, Desk], None] = swap) -> int:
            if target == path:
                path.unlink()
                swap(path, desk)
            return opened(target, flags, *more)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", swapped)
            with pytest.raises(SourceError, match=r"others.txt: rule (regular_file|readable_file)"):
                read_source_task(universe=str(path))
        assert not path.is_file() or path.is_symlink(), name
    assert writer.is_alive()
    os.close(opened(desk.outside / "pipe", os.O_RDONLY | os.O_NONBLOCK))
    writer.join(10)


def test_a_folder_swapped_for_a_link_is_not_read_through(desk: Desk) -> None:
    """While somebody exchanges a folder for a link that leads out, over and over, no byte from outside is read."""
    (desk.outside / "names.txt").write_text("OUTSIDE\t2019-01-01\t2030-01-01\n")
    folder, aside, link = desk.folder / "sub", desk.folder / "aside", desk.folder / "link"
    folder.mkdir()
    (folder / "names.txt").write_text("INSIDE\t2019-01-01\t2030-01-01\n")
    link.symlink_to(desk.outside)
    swap = f"""
import os
while True:
    os.rename({str(folder)!r}, {str(aside)!r}); os.rename({str(link)!r}, {str(folder)!r})
    os.rename({str(folder)!r}, {str(link)!r}); os.rename({str(aside)!r}, {str(folder)!r})
"""
    swapper = subprocess.Popen([sys.executable, "-c", swap])
    allowed, read = AllowedFiles.of(desk.settings), set()
    try:
        for _ in range(2000):
            try:
                with allowed.open(folder / "names.txt") as file:
                    read.add(file.read()[:6])
            except (SourceError, OSError):
                read.add(b"")
    finally:
        swapper.kill()
        swapper.wait()
    assert read <= {b"INSIDE", b""} and b"INSIDE" in read


def test_a_writer_at_a_pipe_is_not_waited_for(desk: Desk) -> None:
    """A pipe whose writer never ends is left alone: the writer itself is still waiting for a reader afterwards."""
    path = desk.folder / "endless.txt"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.open("w").close(), daemon=True)
    writer.start()
    with pytest.raises(SourceError, match="rule regular_file"):
        read_source_task(universe=str(path))
    assert writer.is_alive()
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    writer.join(10)


def test_a_person_at_the_shell_compares_what_he_names(desk: Desk) -> None:
    """`diff` reads the files that are named on its command line, though no form may."""
    plant(desk)
    found = difference(desk.settings, str(desk.outside / "bars.csv"), str(desk.folder / "bars.csv"))
    assert found.summary()["restated_rows"] == 0


NO_TEXT: list[object] = [None, 7, ["a"], Path("a")]
"""What a result that is not there, or another one than meant, gives for an identifier."""
OUT = ["../outside", "../../etc", "/etc", "..", ".hidden", "a/b", "a\x00b", "*", "a\nb", "", "%2e%2e/x?", "x" * 300]


def test_an_identifier_leads_nowhere_else(desk: Desk) -> None:
    """Data versions, stagings, training keys and the like are refused where they could name a path or a pattern."""
    asked: list[Callable[[Any], object]] = [
        lambda name: validate_bars_task(staging=name),
        lambda name: compare_vintages_task(data_version=name),
        lambda name: write_qlib_store_task(data_version=name),
        lambda name: compute_features_task(data_version=name),
        lambda name: evaluate_model_task(training_key=name),
        lambda name: find_approval(desk.settings, name, name),
        lambda name: certificate_path(desk.settings, name),
        lambda name: FeatureStore(desk.settings).get(name),
        lambda name: FeatureStore(desk.settings).find(name, "alpha158"),
        lambda name: quarantine_path(desk.settings, name),
        lambda name: staging_path(desk.settings, name),
        lambda name: qlib_store_path(desk.settings, name),
        lambda name: diff_path(desk.settings, name, "a"),
        lambda name: log_study(desk.settings, name),
    ]
    for name, ask in itertools.product(OUT, asked):
        with pytest.raises(StoreError, match="is no ") as caught:
            ask(name)
        assert str(caught.value).isprintable()
    for key in OUT:
        with pytest.raises(NoRunError, match="is no training key"):
            training_page(desk.settings, key)
    for nothing in NO_TEXT:
        with pytest.raises(StoreError, match="is no staging"):
            validate_bars_task(staging=nothing)  # type: ignore[arg-type]
