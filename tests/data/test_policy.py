"""The policy, on summaries of planted changes: each rule at its limit and beyond."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT, PRICES
from mlops_tasks.config import VintagePolicySettings
from mlops_tasks.data.revisions.diff import diff_bars
from mlops_tasks.data.revisions.policy import Verdict, judge
from mlops_tasks.data.vintages import canonical_bars
from tests.data.test_diff import LAST, changed, market, times

POLICY = VintagePolicySettings()


def verdict(old: pd.DataFrame, new: pd.DataFrame, **policy: Any) -> Verdict:
    """The verdict on two frames under the default policy, or one with other limits."""
    return judge(diff_bars(old, new).summary(), POLICY.model_copy(update=policy))


def rules(found: Verdict) -> dict[str, str]:
    """Rule to decision."""
    return {reason.rule: reason.decision for reason in found.reasons}


def whole_and_past(instruments: int = 20) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A market, and the same market two days earlier."""
    whole = market(days=32, instruments=instruments)
    return whole, whole[whole[DATETIME] <= LAST].reset_index(drop=True)


def test_new_days_are_accepted_without_a_word() -> None:
    """The usual daily vintage is accepted, and there is no reason to read."""
    whole, past = whole_and_past()
    assert verdict(past, whole) == Verdict("accept", ())


def test_another_market_is_not_judged() -> None:
    """Where most instruments are others, nothing is blocked, and the note says so."""
    bars = market()
    found = verdict(bars, bars.assign(**{INSTRUMENT: "X" + bars[INSTRUMENT], CLOSE: 1.0}))
    assert found.decision == "accept"
    assert "another market: 0 of 4 instruments" in found.reasons[0].message


BARS = market(instruments=20)
ONE = BARS[INSTRUMENT] == "S07"
TWO = BARS[INSTRUMENT].isin(["S07", "S11"])
DAY = BARS[DATETIME] == BARS.loc[12, DATETIME]

EDITS: dict[str, tuple[pd.DataFrame, dict[str, str]]] = {
    "a small correction": (changed(BARS, [7], close=times(1.01)), {"restated_rows": "warn"}),
    "corrections at the limit": (changed(BARS, slice(0, 5), close=times(1.01)), {"restated_rows": "warn"}),
    "many corrections": (changed(BARS, slice(0, 6), close=times(1.01)), {"restated_rows": "block"}),
    "a large correction": (
        changed(BARS, [7], close=times(1.6)),
        {"restated_rows": "warn", "price_change": "block", "jumping_instruments": "block"},
    ),
    "a volume correction": (changed(BARS, [7], volume=times(30.0)), {"restated_rows": "warn"}),
    "lost volumes": (changed(BARS, slice(1, 8), volume=np.nan), {"restated_rows": "block"}),
    "last digits": (changed(BARS, slice(None), close=times(1 + 1e-9)), {"rounded": "accept"}),
    "a dividend": (changed(BARS, ONE, factor=0.99), {"readjusted_instruments": "accept"}),
    "dividends everywhere": (changed(BARS, slice(None), factor=0.99), {"readjusted_instruments": "warn"}),
    "a factor at will": (
        changed(BARS, ONE, factor=np.linspace(0.8, 1.2, 30)),
        {"refactored_instruments": "block"},
    ),
    "a split undone": (
        changed(BARS, ONE & (BARS[DATETIME] > "2020-01-10"), **{name: times(0.25) for name in PRICES}),
        {"restated_rows": "block", "price_change": "block", "jumping_instruments": "block"},
    ),
    "units of one": (changed(BARS, ONE, volume=times(100.0)), {"scaled_instruments": "warn"}),
    "units of many": (
        changed(BARS, BARS[INSTRUMENT] < "S05", volume=times(100.0)),
        {"scaled_instruments": "block"},
    ),
    "a lost day": (BARS[~DAY], {"calendar_changes": "block", "removed_rows": "block"}),
    "lost rows": (BARS.drop(index=[8, 40]), {"removed_rows": "warn"}),
    "a lost instrument": (BARS[~ONE], {"removed_instruments": "block", "universe_changes": "warn"}),
    "an earlier end": (BARS[BARS[DATETIME] < LAST], {"earlier_end": "block", "removed_rows": "block"}),
    "filled rows": (
        canonical_bars(pd.concat([BARS, BARS[ONE].assign(**{INSTRUMENT: "NEW"})])),
        {"added_rows": "warn", "universe_changes": "warn"},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_change_breaks_the_rules_that_it_should(name: str) -> None:
    """Each planted change is met by its own rules, at their severity, and by no other."""
    new, expected = EDITS[name]
    found = rules(verdict(BARS, new.reset_index(drop=True)))
    own_spans = "universe_changes"  # without a membership file, an instrument belongs from its first to its last bar
    assert {rule: kind for rule, kind in found.items() if rule != own_spans or own_spans in expected} == expected


def test_the_limits_are_the_settings() -> None:
    """A change that is blocked passes once its limit is raised, as its message says."""
    correction = changed(BARS, slice(0, 6), close=times(1.01))
    (reason,) = verdict(BARS, correction).reasons
    assert "raise vintage_policy.max_restated_rows_share" in reason.message
    assert verdict(BARS, correction, max_restated_rows_share=0.02).decision == "warn"
    assert verdict(BARS, BARS[~DAY], calendar_changes="accept", max_removed_rows_share=1.0).decision == "warn"


def test_a_half_delivered_day_is_blocked() -> None:
    """A new day without most of the instruments names the day, the share and who is missing."""
    whole, past = whole_and_past()
    absent = (whole[DATETIME] == whole[DATETIME].max()) & (whole[INSTRUMENT] > "S11")
    found = verdict(past, whole[~absent].reset_index(drop=True))
    assert rules(found) == {"coverage": "block"}
    assert "on 2020-01-27 only 60.0% of the 20 instruments that traded on 2020-01-23" in found.reasons[0].message
    assert "8 are missing (S12, S13, S14, S15, S16 and 3 more); wait" in found.reasons[0].message


@pytest.mark.parametrize(("field", "ratio"), [("volume", 0.01), ("close", 100.0)])
def test_new_days_in_other_units_are_blocked(field: str, ratio: float) -> None:
    """Volume in lots or prices in cents from one day on is told by field and ratio, not by instrument."""
    whole, past = whole_and_past()
    later = whole[DATETIME] > LAST
    found = verdict(past, changed(whole, later, **{field: times(ratio)}))
    assert rules(found) == {"units": "block"}
    assert f"the median {field} is" in found.reasons[0].message


def test_one_series_for_all_is_blocked_whatever_the_other_limits() -> None:
    """A source that writes one instrument's closes into others is blocked and the instruments are named."""
    values = BARS.loc[BARS[INSTRUMENT] == "S00", CLOSE].to_numpy()
    new = changed(BARS, TWO, close=np.tile(values, 2))
    found = verdict(BARS, new, max_restated_rows_share=1.0, max_price_change=1e9)
    assert rules(found)["shared_series"] == "block"
    assert "close: 2 (S07, S11)" in found.reasons[0].message


def test_a_verdict_tells_counts_names_dates_limits_and_remedies() -> None:
    """What a person reads has everything that is needed to look, to correct, or to let it pass."""
    found = verdict(BARS, changed(BARS, slice(0, 6), close=times(1.01)))
    text = found.text("0123456789abcdef")
    first, last = (str(BARS.loc[row, DATETIME].date()) for row in (0, 6))
    for part in (
        "block by rule restated_rows: 1.167% of the common rows changed (1.000% allowed)",
        "7 rows of 1 instruments (S00)",
        f"{first} to {last}",
        "cells: close 7",
        'alphaops approve 0123456789abcdef --reason "..."',
    ):
        assert part in text
