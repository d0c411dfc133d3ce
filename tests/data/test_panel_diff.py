"""The diff of real panels: a vintage that was broken upstream, new days, and a re-based one."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.config import DataSettings, Settings, VintagePolicySettings
from mlops_tasks.data.revisions.diff import VintageDiff, diff_bars
from mlops_tasks.data.revisions.policy import judge
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.vintages import canonical_bars
from tests.benchmarks.panels import PANELS


def bars(name: str, home: Path) -> pd.DataFrame:
    """Canonical bars of a panel, as they are."""
    path = str(PANELS / name / "panel.parquet")
    settings = Settings(home=home, data=DataSettings(source=path))
    return canonical_bars(read_source(settings, path, None).frame)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """S&P 500 members, 2013 to 2018."""
    return bars("us_sp500_5yr", tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def broken(good: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> VintageDiff:
    """From the good panel to the one that was broken upstream."""
    return diff_bars(good, bars("us_sp500_5yr_broken_2017vintage", tmp_path_factory.mktemp("broken")))


def test_every_common_row_of_the_broken_vintage_is_restated(broken: VintageDiff) -> None:
    """Close and volume differ in nearly every row that both have."""
    summary = broken.summary()
    assert summary["rows"]["common"] == 549_767
    assert summary["instruments"]["common"] == 497
    assert summary["restated_share"] > 0.998
    fields = summary["changes"]["restated"]["fields"]
    assert fields[CLOSE] == 548_658 and fields[VOLUME] == 548_891
    assert summary["changes"]["restated"]["instruments"] == 497


def test_the_identical_series_of_the_broken_vintage_is_named(broken: VintageDiff) -> None:
    """All common instruments carry one series of each field; the one with too few rows to tell is the exception."""
    summary = broken.summary()
    assert {field: info["count"] for field, info in summary["shared_series"].items()} == dict.fromkeys(
        [*PRICES, VOLUME], 496
    )
    closes = broken.changes[(broken.changes["field"] == CLOSE) & (broken.changes["class"] == "restated")]
    assert closes.groupby("date")["new"].nunique().max() == 1


def test_rows_without_open_and_low_are_named(broken: VintageDiff) -> None:
    """Each common instrument lost open and low on one and the same day."""
    emptied = broken.summary()["changes"]["emptied"]
    assert emptied["fields"] == {"low": 497, "open": 497}
    assert emptied["first_date"] == emptied["last_date"] == "2017-07-31"


def test_the_fall_of_every_instrument_is_named(broken: VintageDiff) -> None:
    """The -72% of 2013-05-02 is a jump of every instrument that traded then, and had been none."""
    jumps = broken.summary()["jumps"]
    assert jumps["rows"] == jumps["instruments"] == 471
    assert [(day["date"], round(day["median_move"], 2)) for day in jumps["days"]] == [("2013-05-02", -0.72)]


def test_the_span_and_the_instruments_of_the_broken_vintage_are_named(broken: VintageDiff) -> None:
    """It begins and ends half a year earlier, and has eight other instruments."""
    summary = broken.summary()
    assert (summary["new_first_date"], summary["new_last_date"]) == ("2012-08-10", "2017-08-10")
    assert summary["instruments"]["added"]["first"] == ["BCR", "COH", "DD", "DLPH", "DOW", "LVLT", "SPLS", "WFM"]
    assert summary["instruments"]["removed"]["first"] == ["APTV", "CDNS", "DWDP", "HII", "IQV", "NCLH", "SBAC", "TPR"]
    assert summary["calendar"] == {kind: {"count": 0, "first": []} for kind in ("added", "removed")}


def test_the_broken_vintage_is_blocked_by_every_rule_that_it_breaks(broken: VintageDiff) -> None:
    """The policy lets it in by no rule that concerns what is broken about it."""
    verdict = judge(broken.summary(), VintagePolicySettings())
    assert {reason.rule for reason in verdict.reasons if reason.decision == "block"} == {
        "shared_series",
        "earlier_end",
        "removed_rows",
        "restated_rows",
        "price_change",
        "jumping_instruments",
    }


def test_new_days_of_a_real_panel_are_accepted(good: pd.DataFrame) -> None:
    """Each of the last ten days follows the day before without a reason to look."""
    days = np.unique(good[DATETIME])[-11:]
    recent = good[good[DATETIME] >= "2017-12-01"]
    for old, new in itertools.pairwise(days):
        found = diff_bars(
            *(recent[recent[DATETIME] <= last].reset_index(drop=True) for last in (old, new)), calendar="XNYS"
        )
        assert found.append_only
        assert judge(found.summary(), VintagePolicySettings()).decision == "accept", new


def test_a_rebased_float32_panel_is_readjusted_and_not_restated(tmp_path: Path) -> None:
    """Adjusted prices and factors times a constant, in float32, are a re-adjustment: raw prices keep their digits."""
    panel = pd.read_parquet(PANELS / "cn_csi300_qlib_2010_2026" / "panel.parquet")
    panel = panel[panel[INSTRUMENT].isin(sorted(panel[INSTRUMENT].unique())[:25])]
    rebased = panel.copy()
    some = rebased[INSTRUMENT].isin(sorted(rebased[INSTRUMENT].unique())[:4])
    rebased.loc[some, [*PRICES, FACTOR]] *= np.float32(0.9731)
    frames = []
    for name, frame in (("old", panel), ("new", rebased)):
        path = str(tmp_path / f"{name}.parquet")
        frame.to_parquet(path)
        parsed = read_source(Settings(home=tmp_path, data=DataSettings(source=path)), path, None)
        frames.append(canonical_bars(parsed.frame))
    summary = diff_bars(*frames).summary()
    found = {kind: info["instruments"] for kind, info in summary["changes"].items() if info["cells"]}
    assert found == {"rounded": 4, "readjusted": 4}
    assert judge(summary, VintagePolicySettings()).decision == "accept"
