"""The sync as a whole: repeatable, killable at any point, alone in its folder, restorable."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc_objects.fs.utils import tmp_fname

from mlops_tasks.config import Settings
from mlops_tasks.data import tasks
from mlops_tasks.data.qlib.store import write_qlib_store
from mlops_tasks.data.snapshots import checkout_vintage, pointer_path
from mlops_tasks.data.tasks import (
    publish_vintage_task,
    read_source_task,
    validate_bars_task,
    version_snapshot_task,
)
from mlops_tasks.data.validation.rules import Validation, validate
from mlops_tasks.data.vintages import current_version, current_vintage, load_vintage, vintage_path
from mlops_tasks.errors import StageError, StoreError
from mlops_tasks.process import run_stage
from mlops_tasks.stage_output import PRINTED, StageLine
from tests import programs
from tests.data.market import make_bars, save, sync, tree
from tests.programs import Program

SYNC = (
    "import sys, json; from tests.data.market import sync; result = sync(sys.argv[1]); "
    "print(json.dumps(result, sort_keys=True))"
)


def start_sync(home: Path, source: Path) -> Program:
    return programs.start(SYNC, source, environment=os.environ | {"MLOPS_HOME": str(home)}, stderr=subprocess.PIPE)


@pytest.mark.suite_pages
def test_a_sync_ends_in_a_published_vintage(settings: Settings, tmp_path: Path) -> None:
    """The results of the stages are plain JSON and agree with the vintage in use; staging is empty again."""
    bars = make_bars()
    result = sync(save(bars, tmp_path / "bars.parquet"))
    assert json.loads(json.dumps(result)) == result
    assert result["published"] == {"data_version": result["data_version"], "last_date": "2020-01-23", "changed": True}
    assert (result["received"], result["accepted"], result["quarantined"]) == (120, 120, 0)
    vintage = current_vintage(settings)
    assert (vintage.rows, vintage.instruments, vintage.last_date) == (120, 4, "2020-01-23")
    assert result["path"] == f"data/qlib/{vintage.data_version}"
    assert not list((settings.data_dir / "staging").iterdir())


def test_a_second_sync_of_the_same_bars_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """Nothing is written again, and the results say that nothing changed."""
    source = save(make_bars(), tmp_path / "bars.parquet")
    first = sync(source)
    before = tree(settings.data_dir)
    second = sync(source)
    assert not second["changed"] and not second["published"]["changed"]
    assert second["data_version"] == first["data_version"]
    assert tree(settings.data_dir) == before


def test_one_more_day_adds_that_day_and_shares_the_rest(settings: Settings, tmp_path: Path) -> None:
    """The next day's vintage has its bars in addition; years without a change are the same file on disk."""
    bars = make_bars()
    first = sync(save(bars[bars["Date"] < "2020-01-23"], tmp_path / "a.parquet"))
    second = sync(save(bars, tmp_path / "b.parquet"))
    assert second["changed"] and second["rows"] == first["rows"] + 4
    old, new = (vintage_path(settings, r["data_version"]) / "bars" / "2019.parquet" for r in (first, second))
    assert old.stat().st_ino == new.stat().st_ino or old.stat().st_nlink == 1, "a link, or a copy on write"
    pd.testing.assert_frame_equal(
        load_vintage(settings, second["data_version"]).bars(end="2020-01-22"),
        load_vintage(settings, first["data_version"]).bars(),
    )
    assert current_version(settings) == second["data_version"]


@pytest.mark.parametrize("missing", ["folder", "one file"])
def test_dvc_brings_a_lost_vintage_back(missing: str, settings: Settings, tmp_path: Path) -> None:
    """A vintage whose folder is gone or incomplete is restored from DVC, byte for byte."""
    version = sync(save(make_bars(), tmp_path / "bars.parquet"))["data_version"]
    folder = vintage_path(settings, version)
    before = tree(folder)
    if missing == "folder":
        shutil.rmtree(folder)
    else:
        (folder / "bars" / "2020.parquet").unlink()
    with pytest.raises(StoreError, match="no complete vintage"):
        current_vintage(settings)
    assert checkout_vintage(settings, version).rows == 120
    assert tree(folder) == before


def test_what_dvc_does_not_have_is_named(settings: Settings, tmp_path: Path) -> None:
    """A version without a pointer, or with one and no cache, cannot be restored; the error says what to do."""
    with pytest.raises(StoreError, match="in DVC either; run sync_market_data"):
        checkout_vintage(settings, "0123")
    version = sync(save(make_bars(), tmp_path / "bars.parquet"))["data_version"]
    shutil.rmtree(vintage_path(settings, version))
    shutil.rmtree(settings.data_dir / ".dvc" / "cache")
    with pytest.raises(StoreError, match=r"DVC cannot restore it .*run sync_market_data"):
        checkout_vintage(settings, version)


def test_a_lost_vintage_is_made_again_by_a_sync(settings: Settings, tmp_path: Path) -> None:
    """A sync of the same source puts a deleted vintage back."""
    source = save(make_bars(), tmp_path / "bars.parquet")
    version = sync(source)["data_version"]
    before = tree(vintage_path(settings, version))
    shutil.rmtree(vintage_path(settings, version))
    assert sync(source)["data_version"] == version
    assert tree(vintage_path(settings, version)) == before


def test_stages_refuse_to_run_out_of_order(home: Path, tmp_path: Path) -> None:
    """Versioning needs a validation, validation needs staging; each error names the stage to run."""
    read = read_source_task(source=str(save(make_bars(), tmp_path / "bars.parquet")))
    with pytest.raises(StoreError, match=r"not validated or was rejected; run data.validate_bars"):
        version_snapshot_task(staging=read["staging"])
    with pytest.raises(StoreError, match=r"no such staging .*run data.read_source again"):
        validate_bars_task(staging="0123")
    with pytest.raises(StoreError, match="no complete vintage"):
        publish_vintage_task(data_version="0123")


def test_other_rules_are_another_conclusion(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the allowed share is raised, rows that were rejected are validated anew and become a vintage."""
    bars = make_bars()
    bars.loc[[3, 9], "Open"] = None
    source = save(bars, tmp_path / "bars.csv")
    with pytest.raises(ValueError, match="rule max_rejected_share allows"):
        sync(source)
    monkeypatch.setenv("MLOPS_DATA__MAX_REJECTED_SHARE", "0.02")
    assert sync(source)["quarantined"] == 2


def test_the_settings_name_the_source(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments, source and universe are those of the settings."""
    monkeypatch.setenv("MLOPS_DATA__SOURCE", str(save(make_bars(), tmp_path / "bars.parquet")))
    universe = tmp_path / "members.txt"
    universe.write_text("S01\t2019-12-20\t2020-01-03\n")
    monkeypatch.setenv("MLOPS_DATA__UNIVERSE", str(universe))
    read = read_source_task()
    validate_bars_task(staging=read["staging"])
    version = version_snapshot_task(staging=read["staging"])["data_version"]
    assert load_vintage(settings, version).members()["instrument"].tolist() == ["S01"]


def test_two_syncs_at_once_do_not_mix(tmp_path: Path) -> None:
    """Two syncs of different markets, started together, both end in whole vintages, and one of them is in use."""
    home = tmp_path / "home"
    markets = {seed: make_bars(seed=seed) for seed in (1, 2)}
    markets[2]["Symbol"] = "T" + markets[2]["Symbol"]
    sources = [save(bars, tmp_path / f"{seed}.parquet") for seed, bars in markets.items()]
    children = [start_sync(home, source) for source in [*sources, sources[0]]]
    outcomes = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], outcomes
    results = [json.loads(out.splitlines()[-1]) for out, _ in outcomes]
    settings = Settings(home=home)
    for result, seed in zip(results, (1, 2, 1), strict=True):
        vintage = load_vintage(settings, result["data_version"])
        assert sorted(vintage.bars()["close"]) == sorted(make_bars(seed=seed)["Close"])
        assert pointer_path(settings, vintage.data_version).is_file()
    assert current_version(settings) in {result["data_version"] for result in results}


def test_two_syncs_that_want_the_same_older_store_do_not_mix(settings: Settings, tmp_path: Path) -> None:
    """Two deliveries of the third day, synced at once, end in whole vintages; what is in use has the Qlib store that a
    rebuild gives, and no other store is half of each."""
    bars = make_bars()
    dates = sorted(bars["Date"].unique())
    for n in (28, 29):
        sync(save(bars[bars["Date"] <= dates[n - 1]], tmp_path / f"{n}.parquet"))
    bars.loc[bars.index[-1], "Volume"] += 1
    others = [save(make_bars(), tmp_path / "30.parquet"), save(bars, tmp_path / "30 again.parquet")]
    children = [start_sync(settings.home, source) for source in others]
    outcomes = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], outcomes
    versions = [json.loads(out.splitlines()[-1])["data_version"] for out, _ in outcomes]
    assert versions[0] != versions[1] and current_version(settings) in versions
    stores = {path.name: tree(path) for path in (settings.data_dir / "qlib").iterdir()}
    assert current_version(settings) in stores
    for version, files in stores.items():
        alone = Settings(home=tmp_path / version)
        shutil.copytree(vintage_path(settings, version), vintage_path(alone, version))
        assert files == tree(write_qlib_store(alone, load_vintage(alone, version)))


@pytest.mark.parametrize("overtaken_in", ["reading", "validating", "versioning"])
def test_a_sync_overtaken_by_one_of_the_same_content_ends_well(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken_in: str
) -> None:
    """Another sync of the same rows that reads, publishes and cleans up in between leaves nothing undone."""
    source = save(make_bars(), tmp_path / "bars.parquet")
    read = read_source_task(source=str(source))
    if overtaken_in == "reading":
        other = sync(source)
    if overtaken_in == "validating":

        def validate_while_overtaken(*arguments: Any) -> Validation:
            monkeypatch.setattr(tasks, "validate", validate)
            outcomes.append(sync(source))
            return validate(*arguments)

        outcomes: list[dict[str, Any]] = []
        monkeypatch.setattr(tasks, "validate", validate_while_overtaken)
    validate_bars_task(staging=read["staging"])
    if overtaken_in == "validating":
        (other,) = outcomes
    if overtaken_in == "versioning":
        other = sync(source)
    versioned = version_snapshot_task(staging=read["staging"])
    assert versioned["data_version"] == other["data_version"] == current_version(settings)
    assert not publish_vintage_task(data_version=versioned["data_version"])["changed"]


@pytest.mark.parametrize("points", [6, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("days", [pytest.param([12], marks=pytest.mark.suite_pages), [10, 11, 12]])
def test_a_sync_killed_anywhere_ends_in_the_same_state(days: list[int], points: int, tmp_path: Path) -> None:
    """Killed just before any change of the file system, a sync leaves what is in use whole, and run again it ends as an
    undisturbed one does; so does the third, whose Qlib store is the first one's with a day added."""
    bars = make_bars(days=12)
    dates = sorted(bars["Date"].unique())
    sources = [save(bars[bars["Date"] <= dates[n - 1]], tmp_path / f"{n}.parquet") for n in days]
    done = programs.run(programs.module("tests.data.killing"), tmp_path, points, *sources)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["calm"] == 0 and outcome["total"] > 100
    assert ("more bars" in done.stderr) == (len(days) == 3), "the third store is an older one with a day added"
    calm = tree(tmp_path / "calm" / "data")
    for point, result in outcome["points"].items():
        assert result == {"killed": True, "whole": True, "after": 0}, (point, done.stderr)
        assert tree(tmp_path / f"killed-{point}" / "data") == calm, point
    home = Settings(home=tmp_path / f"killed-{point}")
    version = current_version(home)
    assert version is not None
    shutil.rmtree(vintage_path(home, version))
    assert checkout_vintage(home, version).rows == 48


def test_what_a_killed_call_of_dvc_left_is_removed(settings: Settings, tmp_path: Path) -> None:
    """Half-written objects and links beside their place go with the next vintage; other files stay."""
    bars = make_bars()
    sync(save(bars[bars["Date"] < bars["Date"].max()], tmp_path / "first.parquet"))
    version = current_version(settings)
    assert version is not None
    cache, vintages = settings.data_dir / ".dvc" / "cache" / "files" / "md5", settings.data_dir / "vintages"
    left = [cache / tmp_fname(), next(cache.glob("??")) / tmp_fname(), vintages / tmp_fname()]
    left.append(vintages / version / tmp_fname("universe.txt"))
    other = cache / "notes.tmp"
    for path in [*left, other]:
        path.write_text("test")
    sync(save(bars, tmp_path / "second.parquet"))
    assert not any(path.exists() for path in left) and other.exists()


@pytest.mark.suite_pages
def test_a_stage_logs_its_own_work(settings: Settings, tmp_path: Path) -> None:
    """Every line of a validation that alerts is one of this project's: the log is what a person on call reads."""
    bars = make_bars()
    bars.loc[[3, 4], "Close"] = -1.0
    read = read_source_task(source=str(save(bars, tmp_path / "bars.csv")))
    lines: list[StageLine] = []
    with pytest.raises(StageError, match="close_positive 2"):
        run_stage("data.validate_bars", {"staging": read["staging"]}, time_limit_s=120, on_line=lines.append)
    assert len(lines) > 1 and all(line.logger.startswith("mlops_tasks.") for line in lines), lines
    assert PRINTED not in {line.logger for line in lines}


@pytest.mark.suite_pages
def test_a_sync_talks_to_nobody(tmp_path: Path) -> None:
    """Neither Great Expectations nor DVC nor anything else in a sync looks up or connects to a host."""
    source = save(make_bars(), tmp_path / "bars.parquet")
    refuse = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print('NETWORK', event, arguments)\n"
        "sys.addaudithook(watch)\n"
    )
    environment = os.environ | {"MLOPS_HOME": str(tmp_path / "home"), "HOME": str(tmp_path / "person")}
    command = [sys.executable, "-c", refuse + SYNC, str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "NETWORK" not in done.stdout
    assert not (tmp_path / "person").exists() or not tree(tmp_path / "person")
