"""What the day's drift verdict finds of shifts of known kind and size in one column, and how often it errs without any.

Markets of three kinds, none of them with news, six of each (60 names, bands of 500 days, a year behind them, twelve
columns): `independent` normal draws; `autocorrelated`, columns that do not depend on each other, with AR(1) moves that
all names share, a volatility that comes and goes, ties and gaps; `dependent`, columns of four factors that are AR(1) in
each name, and moves that all names share. Then the three parts of real panels of `drift_quiet`.

`alerts` is the share of all days behind the bands with the verdict drift, nothing being planted. `found_window` and
`found_day` are the shares of windows with that verdict where one column, drawn at random, is shifted within each of the
twenty days, or on the newest day alone: its mean, its variance, its tails, or its correlation with the other columns
alone, its values of each day being the same and those of other names. `quiet` beside them is the share of the same
windows without a shift. `ours` is the largest `alerts` of a kind or panel, `peer` the largest share of quiet windows
in which any column has a PSI of 0.25.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_drift_quiet import PANELS, REAL, Panel, bars_of, by_psi, member_rows, share, watch_of

MARKETS_EACH, FIRST_SEED = 6, 300
NAMES, TRAIN_DAYS, YEAR = 60, 500, 252
PLACES = 3
PLACES_OF_PANEL = 6


def run() -> dict[str, Any]:
    """Every kind of market and every panel that is there."""
    from tests.monitoring.planted_shifts import MARKETS

    results = {kind: judge(synthetic(kind), PLACES) for kind in MARKETS}
    for name, panel in REAL.items():
        if (PANELS / panel.folder).is_dir():
            results[name] = judge(real(panel), PLACES_OF_PANEL)
    ours, peer = (max(each[name] for each in results.values()) for name in ("alerts", "psi_alerts"))
    return {
        "name": "drift_power",
        "ours": ours,
        "peer": peer,
        "unit": "share of quiet days with an alert",
        "ratio": round(peer / max(ours, 1 / YEAR), 1),
        "markets": results,
    }


def synthetic(kind: str) -> Iterator[Any]:
    """The markets of a kind, one after the other."""
    from mlops_tasks.config import DriftSettings
    from tests.monitoring.planted_drift import Watch
    from tests.monitoring.planted_shifts import MARKETS

    limits = DriftSettings()
    for seed in range(FIRST_SEED, FIRST_SEED + MARKETS_EACH):
        frame = MARKETS[kind](seed, TRAIN_DAYS + limits.current_days - 1 + YEAR, NAMES)
        yield Watch.of(frame, TRAIN_DAYS, limits)


def real(panel: Panel) -> Iterator[Any]:
    """The features of a part of a real panel."""
    from tests.monitoring.planted_drift import features_of_bars

    bars, members = bars_of(panel)
    with tempfile.TemporaryDirectory() as folder:
        frame = features_of_bars(bars, Path(folder))
    yield watch_of(frame if members is None else frame[member_rows(frame.index, members)], panel.watched_since)


def judge(watches: Iterator[Any], places: int) -> dict[str, Any]:
    """Rates over markets."""
    alerts, quiet, psi, window, day = [], [], [], [], []
    for number, watch in enumerate(watches):
        alerts.append(watch.farthest(watch.days(len(watch.later.days))) >= 1)
        planted = watch.days(places)
        quiet.append(watch.farthest(planted) >= 1)
        psi.append(by_psi(watch, planted) > 0)
        window.append(found(watch, planted, watch.span, number))
        day.append(found(watch, planted, 1, number))
    return {
        "days": int(sum(map(len, alerts))),
        "alerts": share(np.concatenate(alerts)),
        "largest_of_a_market": max(share(each) for each in alerts),
        "psi_alerts": share(np.concatenate(psi)),
        "quiet": share(np.concatenate(quiet)),
        "found_window": {name: share(np.concatenate([each[name] for each in window])) for name in window[0]},
        "found_day": {name: share(np.concatenate([each[name] for each in day])) for name in day[0]},
    }


def found(watch: Any, places: list[int], days: int, seed: int) -> dict[str, list[bool]]:
    """By shift, of each place whether the verdict is drift."""
    from tests.monitoring.planted_shifts import SHIFTS, Plant, shifted

    result: dict[str, list[bool]] = {shift.name: [] for shift in SHIFTS}
    rng = np.random.default_rng(seed)
    for place in places:
        for shift in SHIFTS:
            plant = Plant(shift, int(rng.integers(len(watch.bands.columns))), days)
            table = watch.bands.exceedance(shifted(watch, place, plant, rng))
            result[shift.name].append(bool(table["exceedance"].max() >= 1))
    return result
