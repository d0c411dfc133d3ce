"""The day's drift verdict against alerts by PSI: quiet days of a year, and planted unit errors found.

Alpha158 of the synthetic market and, where they are there, of every fifth of the S&P 500 members (2013 to 2018) and
every eighth name of the CSI 300 (members at the time, 2010 to 2020). Bands of the first 60% of the days, as the
default train segment. `alerts` is the share of all days of the year behind the train segment on which the verdict is
drift, `alerts_later` of all days behind that year; nothing is planted on them. `peer_alerts` is the share by any PSI
of 0.25 and more, `peer_columns` how many columns that is on average. Errors of 100: `found_window` and `found_day`
each column alone, in 20% of the rows of the 20 days and of the newest day; `found_volume`, `found_prices`: bars of
20% of the instruments on the newest day, through the features.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.panels import PANELS

DAYS = {"us_sp500_5yr": ("2013-01-01", "2018-12-31"), "cn_csi300_qlib_2010_2026": ("2010-01-01", "2020-08-31")}
EVERY = {"us_sp500_5yr": 5, "cn_csi300_qlib_2010_2026": 8}
YEAR = 252
PSI_ALERT = 0.25


def run() -> dict:
    """Every panel in turn."""
    panels = {name: measure(name) for name in ("synthetic", *(name for name in DAYS if (PANELS / name).is_dir()))}
    worst = max(each["alerts"] for each in panels.values())
    peer = min(each["peer_alerts"] for each in panels.values())
    return {
        "name": "drift_quiet",
        "ours": worst,
        "peer": peer,
        "unit": "share of quiet days with an alert, ours at worst, PSI at best",
        "ratio": round(peer / max(worst, 1 / YEAR), 1),
        "panels": panels,
    }


def measure(name: str) -> dict:
    """One panel."""
    from mlops_tasks.config import DriftSettings
    from tests.monitoring.planted_drift import Watch, features_of_bars

    bars, members = panel(name)
    with tempfile.TemporaryDirectory() as folder:
        frame = features_of_bars(bars, Path(folder))
        frame = frame if members is None else frame[member_rows(frame.index, members)]
        frame = frame[[name for name in frame if frame[name].notna().any()]]  # no panel has a vwap
        days = frame.index.get_level_values(0).unique()
        started = time.process_time()
        watch = Watch.of(frame, round(0.6 * len(days)), DriftSettings())
        seconds = time.process_time() - started
        names = int(frame.loc[days[-1]].shape[0])
        return judge(watch, bars, Path(folder)) | {"names": names, "bands_s": round(seconds, 1)}


def judge(watch, bars: pd.DataFrame, home: Path) -> dict:
    """Rates on quiet days and on planted ones."""
    from tests.monitoring.planted_drift import PRICES, bar_errors, column_errors, wrong_bars

    rng = np.random.default_rng(16)
    places = watch.days(len(watch.later.days))
    far = watch.farthest(places)
    year, later = far[:YEAR], far[YEAR:]
    planted = watch.days(12)
    window = pd.concat([column_errors(watch, place, watch.span, rng) for place in planted])
    day = pd.concat([column_errors(watch, place, 1, rng) for place in planted])
    volume, prices = (
        [bar_errors(watch, place, wrong_bars(watch, place, bars, fields, rng), home)["exceedance"] for place in planted]
        for fields in (("volume",), PRICES)
    )
    psi = by_psi(watch, planted)
    return {
        "days": [watch.first, len(year), len(later)],
        "windows": watch.bands.windows,
        "alerts": share(year >= 1),
        "alerts_later": share(later >= 1),
        "peer_alerts": share(psi > 0),
        "peer_columns": round(float(psi.mean()), 1),
        "found_window": share(window >= 1),
        "found_day": share(day >= 1),
        "missed_columns": sorted(set(window.index[window < 1]) | set(day.index[day < 1])),
        "found_volume": share(np.array([each.max() for each in volume]) >= 1),
        "found_prices": share(np.array([each.max() for each in prices]) >= 1),
        "columns_of_volume": round(float(np.mean([(each >= 1).sum() for each in volume])), 1),
        "columns_of_prices": round(float(np.mean([(each >= 1).sum() for each in prices])), 1),
        "limit": round(watch.bands.limit, 2),
        "largest_quiet": round(float(far.max()), 2),
    }


def by_psi(watch, places: list[int]) -> np.ndarray:
    """How many columns reach the usual limit of PSI."""
    from mlops_tasks.monitoring.drift import drift, reference_profile

    rows = watch.frame.loc[: watch.later.days[watch.first - 1]]
    profile = reference_profile(rows.iloc[:: max(1, len(rows) // 100_000)])
    return np.array([(drift(profile, watch.rows(place))["psi"] >= PSI_ALERT).sum() for place in places])


def share(hits) -> float:
    """NaN of none."""
    return round(float(np.mean(hits)), 4)


def panel(name: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Raw bars that were traded, and a membership by spells or None."""
    from mlops_tasks.config import SyntheticSettings
    from mlops_tasks.data.sources.synthetic import synthetic_bars

    if name == "synthetic":
        return synthetic_bars(SyntheticSettings(instruments=100, days=1250)), None
    frame = pd.read_parquet(PANELS / name / "panel.parquet").rename(columns={"date": "datetime"}).assign(vwap=np.nan)
    if "factor" not in frame:
        frame["factor"] = 1.0
    prices = ["open", "high", "low", "close"]
    frame[prices] = frame[prices].div(frame["factor"], axis=0)
    index = frame["instrument"].str.match(r"SH000|SZ399")
    chosen = sorted(frame["instrument"][~index].unique())[:: EVERY[name]]
    kept = frame["instrument"].isin(chosen) & frame["datetime"].between(*DAYS[name])
    kept &= (frame["volume"] > 0) & frame[prices].notna().all(axis=1)
    spells = PANELS / name / "csi300.txt"
    if not spells.is_file():
        return frame[kept], None
    names = ["instrument", "first", "last"]
    return frame[kept], pd.read_csv(spells, sep="\t", names=names, parse_dates=["first", "last"])


def member_rows(index: pd.MultiIndex, members: pd.DataFrame) -> np.ndarray:
    """Which rows are of members on their day."""
    days, names = index.get_level_values(0), index.get_level_values(1).astype(str)
    result = np.zeros(len(index), bool)
    places = pd.Series(np.arange(len(index))).groupby(np.asarray(names)).indices
    for name, first, last in members.itertuples(index=False):
        rows = places.get(name, np.empty(0, np.int64))
        result[rows[(days[rows] >= first) & (days[rows] <= last)]] = True
    return result
