"""Rows let out of quarantine by hand: bound to what they were given for, and no further."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.data.tasks import read_source_task, validate_bars_task
from mlops_tasks.data.validation.quarantine import (
    StaleQuarantineError,
    newest_quarantine,
    quarantine_info,
    release,
)
from mlops_tasks.data.validation.releases import load_releases, releases_path
from mlops_tasks.data.validation.rules import load_rules
from mlops_tasks.errors import StoreError
from mlops_tasks.state.history import newest_alerts
from tests.data.market import make_bars, save, sync

DAYS = 300


def market(tmp_path: Path, name: str = "bars.parquet") -> tuple[pd.DataFrame, Path]:
    """Four instruments; row 50 is a spike of S00, S01 has an unadjusted split at its row 100."""
    bars = make_bars(days=DAYS, instruments=4)
    prices = ["Open", "High", "Low", "Close"]
    bars.loc[50, prices] *= 1.3
    bars.loc[DAYS + 100 : 2 * DAYS - 1, prices] /= 2
    bars.loc[DAYS + 100 : 2 * DAYS - 1, "Volume"] *= 2
    return bars, save(bars, tmp_path / name)


def validated(source: Path) -> dict[str, Any]:
    """The first two stages."""
    return validate_bars_task(staging=read_source_task(source=str(source))["staging"])


def day_of(bars: pd.DataFrame, row: int) -> date:
    return date.fromisoformat(bars["Date"][row])


def test_a_released_row_passes_its_rule_from_the_next_sync_on(settings: Settings, tmp_path: Path) -> None:
    """The same source, synced again, has the row; who released it, why and from what is kept."""
    bars, source = market(tmp_path)
    first = sync(source)
    assert first["rules"] == {"price_spike": 1, "unadjusted_split": 100}
    alerts = newest_alerts(settings, 5)
    assert [(alert.kind, alert.message) for alert in alerts] == [("instruments_quarantined", "S01: unadjusted_split")]
    made = release(
        settings, rule="price_spike", instrument="S00", day=day_of(bars, 50), reason="the exchange confirms it"
    )
    assert (made.date, made.reason) == (bars["Date"][50], "the exchange confirms it") and made.released_by
    second = sync(source)
    assert second["rules"] == {"unadjusted_split": 100}
    assert second["accepted"] == first["accepted"] + 1
    assert second["data_version"] != first["data_version"]
    assert quarantine_info(settings)["report"]["released"] == {"price_spike": 1}


def test_a_release_is_of_the_values_that_were_seen(settings: Settings, tmp_path: Path) -> None:
    """A row whose values change after its release is judged anew; other rows of the rule are not let through."""
    bars, source = market(tmp_path)
    validated(source)
    release(settings, rule="price_spike", instrument="S00", day=day_of(bars, 50), reason="seen")
    bars.loc[50, ["Open", "High", "Low", "Close"]] *= 1.01
    bars.loc[80, ["Open", "High", "Low", "Close"]] *= 1.3
    assert validated(save(bars, tmp_path / "changed.parquet"))["rules"]["price_spike"] == 2


def test_a_released_instrument_passes_until_there_is_new_evidence(settings: Settings, tmp_path: Path) -> None:
    """All rows of the instrument come back; a later split is no part of the release."""
    bars, source = market(tmp_path)
    validated(source)
    made = release(settings, rule="unadjusted_split", instrument="S01", day=None, reason="a spin-off")
    assert (made.date, made.values) == (bars["Date"][DAYS + 100], "")
    assert validated(source)["rules"] == {"price_spike": 1}
    bars.loc[DAYS + 200 : 2 * DAYS - 1, ["Open", "High", "Low", "Close"]] /= 3
    bars.loc[DAYS + 200 : 2 * DAYS - 1, "Volume"] *= 3
    assert validated(save(bars, tmp_path / "later.parquet"))["rules"]["unadjusted_split"] == 200


def test_releases_are_kept_for_good_and_once(settings: Settings, tmp_path: Path) -> None:
    """Releasing the same again changes no file; each release is part of the rules' digest."""
    bars, source = market(tmp_path)
    validated(source)
    before = load_rules(settings).digest()
    made = release(settings, rule="price_spike", instrument="S00", day=None, reason="once")
    files = {path: path.read_bytes() for path in releases_path(settings).iterdir()}
    assert load_rules(settings).digest() != before
    assert release(settings, rule="price_spike", instrument="S00", day=day_of(bars, 50), reason="twice") == made
    assert {path: path.read_bytes() for path in releases_path(settings).iterdir()} == files
    assert load_releases(settings) == (made,)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("table_not_empty", "S00", "why not"), "nothing can be released from rule table_not_empty: there is nothing"),
        (("distinct_names", "S00", "why not"), "the Qlib store has one folder for both names; rename one"),
        (("common_jump", None, "why not"), "no session of .*lists what is"),
        (("own_series", "S00", "why not"), "no row of S00 "),
        (("no_such_rule", "S00", "why not"), "is unknown; rules that can be released from: .*price_spike"),
        (("price_spike", "S03", "why not"), "no row of S03 .*lists what is"),
        (("price_spike", "S00", " "), "needs a reason; give one with --reason"),
    ],
)
def test_what_cannot_be_released_is_said(
    asked: tuple[str, str | None, str], words: str, settings: Settings, tmp_path: Path
) -> None:
    """Rules that nothing makes good, rows and sessions that are not there, releases without a reason are refused."""
    validated(market(tmp_path)[1])
    rule, instrument, reason = asked
    with pytest.raises(StoreError, match=words):
        release(settings, rule=rule, instrument=instrument, day=None, reason=reason)
    assert load_releases(settings) == ()


def test_several_rows_need_a_date(settings: Settings, tmp_path: Path) -> None:
    """Where a rule holds rows of an instrument, the error lists the first of their dates and counts the others."""
    bars = make_bars(days=DAYS, instruments=8)
    bars.loc[50:57, "Open"] = None
    validated(save(bars, tmp_path / "bars.parquet"))
    with pytest.raises(StoreError, match=f"{', '.join(bars['Date'][50:55])} and 3 more; say which with --date"):
        release(settings, rule="open_present", instrument="S00", day=None, reason="halted")


def test_the_command_line_lists_and_releases(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`quarantine` shows counts, rows and reasons, `release` takes one out; both speak JSON."""
    assert main(["quarantine"]) == 1 and "nothing was validated yet" in capsys.readouterr().out
    bars, source = market(tmp_path)
    validated(source)
    capsys.readouterr()
    assert main(["quarantine"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "quarantined 101",
        "price_spike",
        "S01 is quarantined, whole or before a date: unadjusted_split",
        "split_ratio=0.5",
    ):
        assert word in shown
    assert main(["quarantine", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["report"]["calendars"] == {"XNYS": 4}
    assert {row["rule"] for row in info["rows"]} == {"price_spike", "unadjusted_split"}
    assert (settings.home / info["docs"]).is_file()
    told = ["--rule", "price_spike", "--instrument", "S00", "--date", bars["Date"][50], "--reason", "confirmed"]
    assert main(["release", *told]) == 0
    assert "passes rule price_spike from the next sync on: confirmed" in capsys.readouterr().out
    assert main(["release", *told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "confirmed"


def test_a_release_is_of_the_quarantine_that_the_person_has_seen(settings: Settings, tmp_path: Path) -> None:
    """Under the person's name; if a sync has concluded since, nothing is released."""
    bars, source = market(tmp_path)
    validated(source)
    seen = newest_quarantine(settings).name
    given = {"rule": "price_spike", "instrument": "S00", "day": day_of(bars, 50), "reason": "confirmed", "by": "ann"}
    with pytest.raises(StaleQuarantineError, match="look at that one"):
        release(settings, **given, staging="0" * 16)
    assert load_releases(settings) == ()
    assert release(settings, **given, staging=seen).released_by == "ann"
    assert [each.released_by for each in load_releases(settings)] == ["ann"]
