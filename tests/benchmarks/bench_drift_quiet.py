"""The day's drift verdict against alerts by PSI: quiet days of a year, and planted unit errors found.

Alpha158 of twenty synthetic markets of several sizes and, where they are there, of every fifth of the S&P 500 members
(2013 to 2018) and every eighth name of the CSI 300, members at the time, twice: 2010 to 2020, and with bands of 2014 to
August 2020 on the days since. Where nothing else is said, bands are of the first 60% of the days, as the default train
segment. Seeds, names and the last days are others than those that the bands were designed on.

`alerts` is the share of all days of the year behind the train segment on which the verdict is drift, `alerts_later` of
all days behind that year; nothing is planted on them. `synthetic` has their mean and the largest of the markets, of
`all_days` both together, and `above_5_percent`, the share of markets with more alerts than that. Errors of 100:
`found_window` and `found_day` each column alone, in 20% of the rows of the 20 days and of the newest day; on the real
panels `found_volume`, `found_prices`: bars of 20% of the instruments on the newest day, through the features, and
`peer_alerts`, the share of days with any PSI of 0.25 and more, `peer_columns` how many columns that is on average.
`farthest` counts the days that alert by the statistic of their farthest column, and `pooled` is the share of alerts
among all days of the synthetic markets and the panels. `ours` is the mean of `all_days` over the synthetic markets,
`peer` the smallest `peer_alerts`. What was measured of a market is kept (`pieces.py`).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.config import PROJECT
from tests.benchmarks.panels import PANELS
from tests.benchmarks.pieces import Pieces


@dataclass(frozen=True)
class Panel:
    """A part of a real panel."""

    folder: str
    first: str
    last: str
    every: int
    """Every how manieth name, from `offset` on."""
    offset: int
    watched_since: str | None = None
    """First day after the bands' own; None: behind 60% of the days."""


REAL = {
    "us_sp500": Panel("us_sp500_5yr", "2013-01-01", "2018-12-31", 5, 3),
    "cn_csi300": Panel("cn_csi300_qlib_2010_2026", "2010-01-01", "2020-08-31", 8, 5),
    "cn_csi300_since_2020": Panel("cn_csi300_qlib_2010_2026", "2014-01-01", "2026-12-31", 8, 7, "2020-09-01"),
}
SIZES = ((30, 1250), (60, 1250), (100, 1250), (200, 1250), (60, 900), (100, 900), (30, 600), (100, 600))
"""Names and days of the synthetic markets, in turn."""
MARKETS, FIRST_SEED = 20, 200
YEAR = 252
PSI_ALERT = 0.25
MODULES = ("bands", "dependence", "drift", "kernels", "profile", "summaries")
MEASURED = [
    *(PROJECT / "mlops_tasks/monitoring" / f"{name}.py" for name in MODULES),
    *(PROJECT / "tests/monitoring").glob("planted_*.py"),
    Path(__file__),
]
"""The code that gives the verdict and plants in the markets."""


def run() -> dict:
    """Every market in turn."""
    pieces = Pieces.of("drift_quiet", MEASURED)
    markets = [pieces.get(f"market_{number}", lambda number=number: synthetic(number)) for number in range(MARKETS)]
    panels = {name: pieces.get(name, lambda panel=panel: real(panel)) for name, panel in panels_there().items()}
    ours = spread([each["all_days"] for each in markets])
    peer = min((each["peer_alerts"] for each in panels.values()), default=float("nan"))
    return {
        "name": "drift_quiet",
        "ours": ours["mean"],
        "peer": peer,
        "unit": "share of quiet days with an alert",
        "ratio": round(peer / max(ours["mean"], 1 / YEAR), 1),
        "synthetic": {
            "first_year": spread([each["alerts"] for each in markets]),
            "all_days": ours,
            "found_window": spread([each["found_window"] for each in markets]),
            "found_day": spread([each["found_day"] for each in markets]),
        },
        "pooled": pooled([*markets, *panels.values()]),
        "panels": panels,
        "markets": markets,
    }


def panels_there() -> dict[str, Panel]:
    """The parts of real panels that this machine has."""
    return {name: panel for name, panel in REAL.items() if (PANELS / panel.folder).is_dir()}


def pooled(judged: list[dict]) -> float:
    """Share of alerts among all days of all markets."""
    days = [sum(each["days"][1:]) for each in judged]
    return round(sum(sum(each["farthest"].values()) for each in judged) / sum(days), 4)


def spread(shares: list[float]) -> dict[str, float]:
    """Over markets."""
    return {
        "mean": round(float(np.mean(shares)), 4),
        "standard_error": round(float(np.std(shares, ddof=1) / np.sqrt(len(shares))), 4),
        "least": min(shares),
        "largest": max(shares),
        "above_5_percent": share(np.array(shares) > 0.05),
    }


def synthetic(number: int) -> dict:
    """One synthetic market."""
    return judge(synthetic_watch(number)) | {"names": SIZES[number % len(SIZES)][0]}


def synthetic_watch(number: int):
    """The features of a synthetic market."""
    from mlops_tasks.config import SyntheticSettings
    from mlops_tasks.data.sources.synthetic import synthetic_bars
    from tests.monitoring.planted_drift import features_of_bars

    names, days = SIZES[number % len(SIZES)]
    bars = synthetic_bars(SyntheticSettings(instruments=names, days=days, seed=FIRST_SEED + number))
    with tempfile.TemporaryDirectory() as folder:
        return watch_of(features_of_bars(bars, Path(folder)), None)


def real(panel: Panel) -> dict:
    """One part of a real panel, with errors of its bars and the alerts by PSI."""
    from tests.monitoring.planted_drift import PRICES, bar_errors, features_of_bars, wrong_bars

    bars, members = bars_of(panel)
    rng = np.random.default_rng(17)
    with tempfile.TemporaryDirectory() as folder:
        frame = features_of_bars(bars, Path(folder))
        watch = watch_of(frame if members is None else frame[member_rows(frame.index, members)], panel.watched_since)
        planted = watch.days(12)
        volume, prices = (
            [
                bar_errors(watch, place, wrong_bars(watch, place, bars, fields, rng), Path(folder))["exceedance"]
                for place in planted
            ]
            for fields in (("volume",), PRICES)
        )
    psi = by_psi(watch, planted)
    return judge(watch) | {
        "names": int(watch.rows(planted[-1]).groupby(level=0).size().median()),
        "peer_alerts": share(psi > 0),
        "peer_columns": round(float(psi.mean()), 1),
        "found_volume": share(np.array([each.max() for each in volume]) >= 1),
        "found_prices": share(np.array([each.max() for each in prices]) >= 1),
        "columns_of_volume": round(float(np.mean([(each >= 1).sum() for each in volume])), 1),
        "columns_of_prices": round(float(np.mean([(each >= 1).sum() for each in prices])), 1),
    }


def watch_of(frame: pd.DataFrame, since: str | None):
    """Bands of the days before one, or of the first 60%."""
    from mlops_tasks.config import DriftSettings
    from tests.monitoring.planted_drift import Watch

    frame = frame[[name for name in frame if frame[name].notna().any()]]  # no panel has a vwap
    days = pd.DatetimeIndex(frame.index.get_level_values(0).unique())
    first = round(0.6 * len(days)) if since is None else int(days.searchsorted(pd.Timestamp(since)))
    return Watch.of(frame, first, DriftSettings())


def judge(watch) -> dict:
    """Rates on quiet days and on planted ones."""
    from tests.monitoring.planted_drift import column_errors

    rng = np.random.default_rng(16)
    first = watch.farthest_columns(watch.days(len(watch.later.days)))
    far = first["exceedance"].to_numpy()
    year, later = far[:YEAR], far[YEAR:]
    planted = watch.days(12)
    window = pd.concat([column_errors(watch, place, watch.span, rng) for place in planted])
    day = pd.concat([column_errors(watch, place, 1, rng) for place in planted])
    return {
        "days": [watch.first, len(year), len(later)],
        "windows": watch.bands.windows,
        "alerts": share(year >= 1),
        "alerts_later": share(later >= 1) if len(later) else None,
        "all_days": share(far >= 1),
        "farthest": first["statistic"][far >= 1].value_counts().to_dict(),
        "found_window": share(window >= 1),
        "found_day": share(day >= 1),
        "limit": round(watch.bands.limit, 2),
        "largest_quiet": round(float(far.max()), 2),
    }


def by_psi(watch, places: list[int]) -> np.ndarray:
    """How many columns reach the usual limit of PSI."""
    from mlops_tasks.monitoring.drift import drift
    from mlops_tasks.monitoring.profile import reference_profile

    rows = watch.frame.loc[: watch.later.days[watch.first - 1]]
    profile = reference_profile(rows.iloc[:: max(1, len(rows) // 100_000)])
    return np.array([(drift(profile, watch.rows(place))["psi"] >= PSI_ALERT).sum() for place in places])


def share(hits) -> float:
    """Of days or columns."""
    return round(float(np.mean(hits)), 4)


def bars_of(panel: Panel) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Raw bars that were traded, and a membership by spells or None."""
    frame = pd.read_parquet(PANELS / panel.folder / "panel.parquet").rename(columns={"date": "datetime"})
    frame["vwap"] = np.nan
    if "factor" not in frame:
        frame["factor"] = 1.0
    prices = ["open", "high", "low", "close"]
    frame[prices] = frame[prices].div(frame["factor"], axis=0)
    index = frame["instrument"].str.match(r"SH000|SZ399")
    chosen = sorted(frame["instrument"][~index].unique())[panel.offset :: panel.every]
    kept = frame["instrument"].isin(chosen) & frame["datetime"].between(panel.first, panel.last)
    kept &= (frame["volume"] > 0) & frame[prices].notna().all(axis=1)
    spells = PANELS / panel.folder / "csi300.txt"
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
