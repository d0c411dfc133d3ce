"""Real panels, where they are at hand: what is known about them is what the sync finds."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, INSTRUMENT, PRICES
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.measures import measure
from mlops_tasks.data.validation.rules import Rules, Validation, check_vintage, validate
from mlops_tasks.errors import VintageRejectedError
from tests.benchmarks.panels import PANELS

US = PANELS / "us_sp500_5yr" / "panel.parquet"
BROKEN = PANELS / "us_sp500_5yr_broken_2017vintage" / "panel.parquet"
CN = PANELS / "cn_csi300_qlib_2010_2026" / "panel.parquet"
INDICES = PANELS / "benchmarks_index_etf" / "panel.parquet"

AT_HAND = [path for path in (US, BROKEN, CN, INDICES) if path.is_file()]
RULES = Rules(load_suites())

KNOWN: dict[Path, dict[str, dict[str, Any]]] = {
    US: {
        "rules": {
            "no_trade": 4,
            "open_present": 7,
            "high_present": 4,
            "low_present": 4,
            "high_not_below_low": 1,
            "open_not_above_high": 1,
            "open_not_below_low": 3,
            "close_not_above_high": 1,
            "close_not_below_low": 8,
            "stale_prices": 277,
            "price_spike": 6,
        },
        "instruments": {},
        "shortened": {},
        "warnings": {"no_trade": 4, "unexplained_jump": 18, "possible_action": 11, "gap": 19},
        "fatal": {},
        "calendars": {"XNYS": 505},
    },
    BROKEN: {
        "rules": {"own_series": 635_290, "open_present": 505, "low_present": 505, "own_bad_rows": 635_290},
        "instruments": 505,
        "shortened": {},
        "warnings": {"common_jump": 1},
        "fatal": {"common_price_unit": 1},
        "calendars": {"XNYS": 505},
    },
    CN: {
        "rules": {"no_trade": 1}
        | {"close_not_below_low": 1, "displaced_level": 1, "unadjusted_split": 1636, "factor_error": 3511},
        "instruments": {},
        "shortened": {"SZ302132": ["unadjusted_split", "factor_error"]},
        "warnings": {
            "no_trade": 1,
            "unexplained_jump": 11,
            "possible_action": 20,
            "factor_unmatched": 6,
            "factor_decrease": 10,
            "volume_missing": 791,
            "no_trades": 52_560,
        },
        "fatal": {},
        "calendars": {"XSHG": 652},
    },
    INDICES: {
        "rules": {"price_unit": 722},
        "instruments": {},
        "shortened": {"EEM": ["price_unit"]},
        "warnings": {
            "unexplained_jump": 12,
            "factor_unmatched": 1,
            "factor_decrease": 1,
            "gap": 3,
            "no_trades": 2,
            "long_gap": 1,
        },
        "fatal": {},
        "calendars": {"XNYS": 13, "XSHG": 3},
    },
}

LISTED = [
    (US, "high_not_below_low", "AOS", "2014-05-19"),
    (US, "close_not_below_low", "LNT", "2016-05-19"),
    (US, "unexplained_jump", "EBAY", "2015-07-20"),
    (US, "unexplained_jump", "NI", "2015-07-02"),
    (US, "unexplained_jump", "BAX", "2015-07-01"),
    *((US, "possible_action", name, "2014-08-07") for name in ("DISCA", "DISCK")),
    (US, "possible_action", "A", "2014-11-03"),
    (US, "possible_action", "IR", "2013-12-02"),
    (US, "possible_action", "KLAC", "2014-11-26"),
    (CN, "displaced_level", "SH688256", "2026-05-08"),
    *((CN, "possible_action", name, "2020-11-25") for name in ("SH600633", "SH600654", "SH600655")),
    *((US, "no_trade", name, day) for name, day in (("DHR", "2016-01-12"), ("O", "2016-01-12"))),
    *((US, "no_trade", name, day) for name, day in (("FTV", "2016-07-01"), ("UA", "2016-04-07"))),
    *((US, "gap", name, None) for name in ("O", "DHR", "ES", "ICE", "ORCL", "BMY")),
    (BROKEN, "own_series", "AAPL", "2013-05-02"),
    (BROKEN, "open_present", "AAPL", None),
    (BROKEN, "low_present", "AAPL", None),
    (BROKEN, "common_jump", None, "2013-05-02"),
    (CN, "factor_error", "SZ302132", "2025-02-18"),
    (CN, "unadjusted_split", "SZ302132", "2017-05-26"),
    (CN, "no_trade", "SZ302132", None),
    *((CN, "factor_decrease", name, None) for name in ("SH600372", "SH600633", "SH600654", "SH600655", "SH601607")),
    *((CN, "factor_decrease", name, None) for name in ("SZ000001", "SZ000002", "SZ000156", "SZ002157")),
    *((US, "price_spike", name, "2017-09-14") for name in ("EFX", "FLR", "MPC", "MRO", "NWL")),
    (US, "stale_prices", "ABT", "2014-07-18"),
    (US, "stale_prices", "ABT", "2014-08-04"),
    (INDICES, "gap", "QQQ", "2011-03-23"),
    (INDICES, "long_gap", "QQQ", "2011-03-23"),
    (INDICES, "price_unit", "EEM", "2003-04-11"),
]
"""What the panels' notes list, and what was found beyond: SZ302132's splits, bars repeated or of another instrument."""


@lru_cache(maxsize=1)
def judged(path: Path) -> Validation:
    data = DataSettings(source=str(path), prices="raw" if path == INDICES else "adjusted")
    settings = Settings(home=Path("nowhere"), data=data)
    return validate(read_source(settings, str(path), None).frame, RULES)


@lru_cache(maxsize=1)
def findings(path: Path) -> pd.DataFrame:
    """Each finding's rule, instrument and date."""
    validation = judged(path)
    rows = [table.select(["rule", INSTRUMENT, "evidence_date"]).to_pandas() for table in validation.failures()]
    quarantine = pd.concat(rows).set_axis(["rule", INSTRUMENT, DATETIME], axis=1)
    notes = [validation.notes(severity)[["rule", INSTRUMENT, DATETIME]] for severity in ("warning", "vintage")]
    return pd.concat([quarantine.astype({"rule": "str"}), *notes], ignore_index=True)


@pytest.mark.parametrize("path", AT_HAND, ids=lambda path: path.parent.name)
def test_a_panel_breaks_the_rules_that_are_known(path: Path) -> None:
    """The suites find the documented dirt and nothing else; only the vintage that is broken throughout is rejected."""
    validation, known = judged(path), KNOWN[path]
    assert validation.rules == known["rules"]
    whole = validation.rejected_instruments
    assert (len(whole) if path == BROKEN else whole) == known["instruments"]
    assert validation.shortened_instruments == known["shortened"]
    assert validation.warnings == known["warnings"]
    assert validation.fatal == known["fatal"]
    assert validation.measures.calendar_counts() == known["calendars"]
    assert validation.received == int(validation.accepted.sum()) + validation.quarantined
    if path == BROKEN:
        with pytest.raises(VintageRejectedError) as caught:
            check_vintage(validation, RULES, Path("quarantine"))
        for words in ("rule own_series", "session 2013-05-02 of XNYS: rule common_price_unit", "open_present 505"):
            assert words in str(caught.value)
    else:
        check_vintage(validation, RULES, Path("quarantine"))


@pytest.mark.parametrize(
    ("path", "rule", "instrument", "date"),
    [case for case in LISTED if case[0] in AT_HAND],
    ids=lambda value: value.parent.name if isinstance(value, Path) else str(value),
)
def test_what_the_notes_list_is_found(path: Path, rule: str, instrument: str | None, date: str | None) -> None:
    """Each defect that is listed for a panel is named by a rule, with its instrument and date."""
    found = findings(path)
    found = found[found["rule"] == rule]
    if instrument is not None:
        found = found[found[INSTRUMENT] == instrument]
    if date is not None:
        found = found[found[DATETIME] == date]
    assert len(found) > 0


@pytest.mark.parametrize("path", [path for path in AT_HAND if path == CN], ids=lambda path: path.parent.name)
def test_float32_prices_come_back_exactly(path: Path, tmp_path: Path) -> None:
    """Raw times factor, cast to float32, is the source's adjusted price to the last bit."""
    source = pd.read_parquet(path)
    frame = read_source(Settings(home=tmp_path, data=DataSettings(source=str(path))), str(path), None).frame
    for name in PRICES:
        np.testing.assert_array_equal((frame[name] * frame["factor"]).to_numpy(dtype="float32"), source[name])


@pytest.mark.parametrize("path", [path for path in AT_HAND if path == CN], ids=lambda path: path.parent.name)
def test_raw_a_shares_without_their_factor_are_not_believed(path: Path) -> None:
    """Of the actions that move a raw price by a sixth and more 93% are found, by the daily limit above all, and 97%
    with those that are warned of; no more than a handful is found where there is none."""
    frame = read_source(Settings(home=Path("nowhere"), data=DataSettings(source=str(path))), str(path), None).frame
    with np.errstate(divide="ignore"):
        change = np.log(frame["factor"]).groupby(frame[INSTRUMENT]).diff()
    measures = measure(frame.assign(factor=1.0), "auto", RULES.suites.measures)
    missing = (change.abs() > 0.17).groupby(frame[INSTRUMENT]).sum()
    found = measures.instruments.set_index(INSTRUMENT)["splits"].reindex(missing.index)
    warned = measures.rows["action_ratio"].notna() & (change.abs() > 0.17)
    assert missing.sum() > 1100 and np.minimum(found, missing).sum() > 0.93 * missing.sum()
    assert np.minimum(found, missing).sum() + warned.sum() > 0.97 * missing.sum()
    assert (found - missing).clip(lower=0).sum() < 0.02 * missing.sum()
