"""The compare stage in a sync: what is blocked stays out, what is approved comes in, and both are told."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.approvals import approvals, approve, find_approval
from mlops_tasks.data.revisions.diff import read_diff
from mlops_tasks.data.snapshots import pointer_path
from mlops_tasks.data.tasks import (
    compare_vintages_task,
    publish_vintage_task,
    read_source_task,
    validate_bars_task,
    version_snapshot_task,
)
from mlops_tasks.data.vintages import current_version, vintage_path
from mlops_tasks.errors import StoreError, VintageRejectedError
from mlops_tasks.state.history import newest_alerts
from tests import programs
from tests.data.market import make_bars, save, sync, tree


def versioned(bars: pd.DataFrame, path: Path) -> str:
    """The data version of bars that were read, validated and written, and not compared yet."""
    read = read_source_task(source=str(save(bars, path)))
    validate_bars_task(staging=read["staging"])
    return str(version_snapshot_task(staging=read["staging"])["data_version"])


def first_days(days: int) -> pd.DataFrame:
    """The usual market of 30 days, up to one of them."""
    bars = make_bars()
    return bars[bars["Date"] <= bars["Date"].iloc[days - 1]]


def restated() -> pd.DataFrame:
    """The usual market, one instrument's prices 12% higher from its tenth day to its twentieth."""
    bars = make_bars()
    bars.loc[10:20, ["Open", "High", "Low", "Close"]] *= 1.12
    return bars


@pytest.fixture
def blocked(settings: Settings, tmp_path: Path) -> tuple[str, str]:
    """The version in use and one that the policy blocks against it."""
    old = sync(save(make_bars(), tmp_path / "a.parquet"))["data_version"]
    with pytest.raises(VintageRejectedError):
        sync(save(restated(), tmp_path / "b.parquet"))
    (new,) = {path.stem for path in settings.data_dir.glob("vintages/*.dvc")} - {old}
    return old, new


def test_restated_history_stays_out_and_is_told(settings: Settings, tmp_path: Path, blocked: tuple[str, str]) -> None:
    """Yesterday's vintage stays in use; the error and the alert name rule, instrument, dates and the remedy."""
    old, new = blocked
    assert current_version(settings) == old
    with pytest.raises(VintageRejectedError) as error:
        compare_vintages_task(data_version=new)
    message = str(error.value)
    for part in (
        f"vintage {new} against {old}, which is in use",
        "block by rule restated_rows: 9.167% of the common rows changed (1.000% allowed)",
        "11 rows of 1 instruments (S00), 2019-12-24 to 2020-01-09",
        f'alphaops approve {new} --reason "..."',
    ):
        assert part in message
    (alert,) = newest_alerts(settings, 10)
    assert (alert.kind, alert.subject, alert.message) == ("vintage_blocked", new, message)
    assert read_diff(settings, old, new) is not None
    assert not list((settings.data_dir / "staging").iterdir())
    assert not list((settings.data_dir / "qlib").glob(f"{new}*"))


def test_an_approved_vintage_comes_into_use(settings: Settings, tmp_path: Path, blocked: tuple[str, str]) -> None:
    """After a person approved the pair, the next sync of the same bars passes, with a note of who did."""
    old, new = blocked
    approval = approve(settings, new, " the vendor told us ", by="ann")
    assert (approval.old, approval.new, approval.reason, approval.by) == (old, new, "the vendor told us", "ann")
    assert find_approval(settings, old, new) == approval
    assert find_approval(settings, new, old) is None
    result = sync(tmp_path / "b.parquet")
    assert (result["decision"], result["approved_by"], result["compared_with"]) == ("warn", "ann", old)
    assert current_version(settings) == new
    assert "approved by ann: the vendor told us" in newest_alerts(settings, 1)[0].message


def test_a_vintage_is_approved_with_the_trigger_form(settings: Settings, blocked: tuple[str, str]) -> None:
    """Only the version that was meant passes, only with a reason, and a retry adds no second approval."""
    old, new = blocked
    form = {"approve_reason": "the vendor told us", "approved_by": "ann"}
    with pytest.raises(VintageRejectedError):
        compare_vintages_task(data_version=new, approve_version=old, **form)
    with pytest.raises(StoreError, match="reason is empty"):
        compare_vintages_task(data_version=new, approve_version=new)
    assert approvals(settings) == []
    for _ in range(2):
        assert compare_vintages_task(data_version=new, approve_version=new, **form)["decision"] == "warn"
    assert [(made.new, made.by, made.reason) for made in approvals(settings)] == [(new, "ann", "the vendor told us")]


def test_an_approval_is_of_one_pair_and_is_never_overwritten(settings: Settings, blocked: tuple[str, str]) -> None:
    """Approvals pile up, the newest counts, and none lets another vintage in."""
    _, new = blocked
    first, second = (approve(settings, new, reason, by="ann") for reason in ("one", "two"))
    assert approvals(settings) == [first, second]
    assert find_approval(settings, first.old, new) == second
    assert find_approval(settings, "0123", new) is None


@pytest.mark.parametrize(
    ("which", "reason", "message"),
    [
        ("new", "  ", "the reason is empty"),
        ("old", "why", "is in use already"),
        ("0123", "why", "no complete vintage 0123"),
    ],
)
def test_a_pointless_approval_is_an_error(
    settings: Settings, blocked: tuple[str, str], which: str, reason: str, message: str
) -> None:
    """Nothing is approved without a reason, nor what is in use or unknown."""
    version = {"old": blocked[0], "new": blocked[1]}.get(which, which)
    with pytest.raises(StoreError, match=message):
        approve(settings, version, reason)
    assert approvals(settings) == []


def test_without_a_vintage_in_use_nothing_needs_an_approval(settings: Settings, tmp_path: Path) -> None:
    """The first vintage is accepted, and cannot be approved."""
    version = versioned(make_bars(), tmp_path / "a.parquet")
    assert compare_vintages_task(data_version=version) == {
        "data_version": version,
        "compared_with": None,
        "decision": "accept",
        "reasons": [],
        "approved_by": None,
        "counts": None,
        "diff": None,
    }
    with pytest.raises(StoreError, match="no vintage is in use yet"):
        approve(settings, version, "why")


def test_a_new_day_passes_and_comparing_twice_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """The usual sync is accepted without an alert, its result is plain JSON, and a repetition finds the diff."""
    old = sync(save(first_days(29), tmp_path / "a.parquet"))["data_version"]
    version = versioned(first_days(30), tmp_path / "b.parquet")
    first = compare_vintages_task(data_version=version)
    assert json.loads(json.dumps(first)) == first
    assert (first["decision"], first["compared_with"], first["counts"]["appended"]) == ("accept", old, 4)
    assert (settings.home / first["diff"] / "summary.json").is_file()
    before = tree(settings.data_dir)
    assert compare_vintages_task(data_version=version) == first
    assert tree(settings.data_dir) == before
    assert newest_alerts(settings, 10) == []


def test_a_small_correction_passes_with_an_alert(settings: Settings, tmp_path: Path) -> None:
    """A warning lets the vintage in and tells what changed, once."""
    sync(save(make_bars(), tmp_path / "a.parquet"))
    bars = make_bars()
    bars.loc[40, "Volume"] += 1
    result = sync(save(bars, tmp_path / "b.parquet"))
    assert result["decision"] == "warn"
    assert current_version(settings) == result["data_version"]
    (alert,) = newest_alerts(settings, 10)
    assert alert.kind == "history_changed"
    assert "S01 volume" in alert.message and "approve" not in alert.message


def test_publishing_compares_with_what_is_in_use_by_then(settings: Settings, tmp_path: Path) -> None:
    """A vintage that was accepted against an older one does not slip past a newer one that came into use meanwhile."""
    sync(save(first_days(28), tmp_path / "a.parquet"))
    late = versioned(first_days(29), tmp_path / "b.parquet")
    assert compare_vintages_task(data_version=late)["decision"] == "accept"
    newest = sync(save(first_days(30), tmp_path / "c.parquet"))["data_version"]
    with pytest.raises(VintageRejectedError, match="the last date goes back from 2020-01-23 to 2020-01-22"):
        publish_vintage_task(data_version=late)
    assert current_version(settings) == newest


def test_a_lost_vintage_in_use_is_brought_back_or_asks_for_an_approval(settings: Settings, tmp_path: Path) -> None:
    """The comparison restores the old vintage from DVC; where DVC has lost it too, a person decides."""
    old = sync(save(first_days(29), tmp_path / "a.parquet"))["data_version"]
    new = versioned(first_days(30), tmp_path / "b.parquet")
    (vintage_path(settings, old) / "instruments.txt").unlink()
    assert compare_vintages_task(data_version=new)["decision"] == "accept"
    (vintage_path(settings, old) / "instruments.txt").unlink()
    pointer_path(settings, old).unlink()
    with pytest.raises(VintageRejectedError, match=r"rule comparable: the vintage in use cannot be compared with"):
        compare_vintages_task(data_version=new)
    approve(settings, new, "the disk was lost")
    assert compare_vintages_task(data_version=new)["decision"] == "warn"
    assert publish_vintage_task(data_version=new)["changed"]


def test_a_comparison_killed_anywhere_is_made_by_the_next(settings: Settings, tmp_path: Path) -> None:
    """Killed at any write of the diff, the stage run again ends as an undisturbed one does."""
    old = sync(save(make_bars(), tmp_path / "a.parquet"))["data_version"]
    bars = make_bars()
    bars.loc[40, "Volume"] += 1
    new = versioned(bars, tmp_path / "b.parquet")
    done = programs.run(KILLED_AT_EACH_WRITE, settings.data_dir, new)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 8
    assert compare_vintages_task(data_version=new)["decision"] == "warn"
    folders = [path.name for path in (settings.data_dir / "diffs").iterdir() if not path.name.startswith(".")]
    assert folders == [f"{old}_{new}"]
    assert len(newest_alerts(settings, 10)) == 1


KILLED_AT_EACH_WRITE = """
import os, signal, sys
import mlops_tasks.data.revisions.diff, mlops_tasks.plots.vintage_diff
from mlops_tasks.data.tasks import compare_vintages_task

def watch(event, arguments):
    global left
    writes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove") or (
        event == "open" and str(arguments[0]).startswith(sys.argv[1]) and bool(arguments[2] & os.O_CREAT)
    )
    left -= writes
    if writes and not left:
        os.kill(os.getpid(), signal.SIGKILL)

killed = 0
for point in range(1, 99):
    left = point
    if (child := os.fork()) == 0:
        sys.addaudithook(watch)
        compare_vintages_task(data_version=sys.argv[2])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert status == signal.SIGKILL, status
    killed += 1
print(killed)
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Status and output of a verb."""
    status = main(list(words))
    return status, capsys.readouterr().out


def test_the_command_line_lists_compares_approves_and_restores(
    settings: Settings, tmp_path: Path, blocked: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`vintages`, `diff`, `approve` and `checkout` do by hand what a person needs after a blocked sync."""
    old, new = blocked
    status, text = run(capsys, "vintages")
    assert status == 0 and f"{old}  in use" in text and f"{new}        " in text
    listed = json.loads(run(capsys, "vintages", "--json")[1])
    assert {info["data_version"]: info["in_use"] for info in listed} == {old: True, new: False}
    assert {info["rows"] for info in listed} == {120}

    status, text = run(capsys, "diff", old, new)
    assert status == 0
    assert "restated    11 rows of 1 instruments, 2019-12-24 to 2020-01-09" in text
    assert "S00           close" in text and "policy      block" in text
    of_files = json.loads(run(capsys, "diff", str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), "--json")[1])
    of_versions = json.loads(run(capsys, "diff", old, new, "--json")[1])
    assert of_files["changes"] == of_versions["changes"]
    mixed = json.loads(run(capsys, "diff", old, str(tmp_path / "b.parquet"), "--json")[1])
    assert mixed["changes"] == of_versions["changes"]

    status, text = run(capsys, "approve", new, "--reason", "checked by hand")
    assert status == 0 and f"{new} may follow {old}" in text
    assert sync(tmp_path / "b.parquet")["decision"] == "warn"

    (vintage_path(settings, old) / "manifest.json").unlink()
    assert "in DVC only" in run(capsys, "vintages")[1]
    status, text = run(capsys, "checkout", old)
    assert status == 0 and text.strip() == f"{vintage_path(settings, old)}: 120 bars"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("diff", "0123", "synthetic"), "0123: no such data version, source, file or folder"),
        (("approve", "0123", "--reason", "x"), "no complete vintage 0123"),
        (("checkout", "0123"), "no vintage 0123 in DVC either"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    settings: Settings, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """A mistyped version is one line with a remedy, and status 1."""
    status, text = run(capsys, *words)
    assert status == 1 and message in text


def test_an_empty_home_has_no_vintage(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first sync the list says how to get one."""
    assert run(capsys, "vintages") == (0, "there is no vintage yet; run `make up`, or sync_market_data in Airflow\n")
    assert run(capsys, "vintages", "--json") == (0, "[]\n")
