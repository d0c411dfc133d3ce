"""What the day's drift verdict finds of shifts of known kind and size in one column, and how often it errs without any.

Markets of three kinds, none of them with news, twenty of each (60 names, bands of 500 days, a year behind them, twelve
columns): `independent` normal draws; `autocorrelated`, columns that do not depend on each other, with AR(1) moves that
all names share, a volatility that comes and goes, ties and gaps; `dependent`, columns of four factors that are AR(1) in
each name, and moves that all names share. Then the three parts of real panels of `drift_quiet`, and `alpha158`, its
synthetic markets.

`alerts` is the share of all days behind the bands with the verdict drift, nothing being planted. `found_window` and
`found_day` are the shares of windows with that verdict where one column, drawn at random, is shifted within each of the
twenty days, or on the newest day alone: its mean, its variance, its tails, or its correlation with the other columns
alone, its values of each day being the same and those of other names. `quiet` beside them is the share of the same
windows without a shift. `ours` is the largest `alerts` of a kind or panel, `peer` the largest share of quiet windows
in which any column has a PSI of 0.25. What was measured of a market is kept (`pieces.py`).
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_drift_quiet import (
    MARKETS,
    MEASURED,
    YEAR,
    Panel,
    bars_of,
    by_psi,
    member_rows,
    panels_there,
    share,
    synthetic_watch,
    watch_of,
)
from tests.benchmarks.pieces import Pieces

MARKETS_EACH, FIRST_SEED = 20, 300
NAMES, TRAIN_DAYS = 60, 500
PLACES = 3
PLACES_OF_PANEL = 24


def run() -> dict[str, Any]:
    """Every kind of market and every panel that is there."""
    pieces = Pieces.of("drift_power", [*MEASURED, Path(__file__)])
    results = {
        kind: rates([pieces.get(f"{kind}_{number}", partial(judge, make, number)) for number, make in enumerate(each)])
        for kind, each in markets().items()
    }
    ours, peer = (max(each[name] for each in results.values()) for name in ("alerts", "psi_alerts"))
    return {
        "name": "drift_power",
        "ours": ours,
        "peer": peer,
        "unit": "share of quiet days with an alert",
        "ratio": round(peer / max(ours, 1 / YEAR), 1),
        "markets": results,
    }


Made = tuple[Any, int]
"""A market, and in how many of its windows shifts are planted."""


def markets() -> dict[str, list[Callable[[], Made]]]:
    """By kind, what makes each market."""
    from tests.monitoring.planted_shifts import MARKETS as KINDS

    made: dict[str, list[Callable[[], Made]]] = {
        kind: [partial(synthetic, kind, FIRST_SEED + number) for number in range(MARKETS_EACH)] for kind in KINDS
    }
    made |= {name: [partial(real, panel)] for name, panel in panels_there().items()}
    return made | {"alpha158": [partial(alpha158, number) for number in range(MARKETS)]}


def alpha158(number: int) -> Made:
    """A synthetic market of `drift_quiet`."""
    return synthetic_watch(number), PLACES


def synthetic(kind: str, seed: int) -> Made:
    """A market of a kind."""
    from mlops_tasks.config import DriftSettings
    from tests.monitoring.planted_drift import Watch
    from tests.monitoring.planted_shifts import MARKETS as KINDS

    limits = DriftSettings()
    frame = KINDS[kind](seed, TRAIN_DAYS + limits.current_days - 1 + YEAR, NAMES)
    return Watch.of(frame, TRAIN_DAYS, limits), PLACES


def real(panel: Panel) -> Made:
    """The features of a part of a real panel."""
    from tests.monitoring.planted_drift import features_of_bars

    bars, members = bars_of(panel)
    with tempfile.TemporaryDirectory() as folder:
        frame = features_of_bars(bars, Path(folder))
    watch = watch_of(frame if members is None else frame[member_rows(frame.index, members)], panel.watched_since)
    return watch, PLACES_OF_PANEL


def judge(make: Callable[[], Made], number: int) -> dict[str, Any]:
    """What is found in one market, day by day and window by window."""
    watch, places = make()
    planted = watch.days(places)
    return {
        "alerts": (watch.farthest(watch.days(len(watch.later.days))) >= 1).tolist(),
        "quiet": (watch.farthest(planted) >= 1).tolist(),
        "psi": (by_psi(watch, planted) > 0).tolist(),
        "window": found(watch, planted, watch.span, number),
        "day": found(watch, planted, 1, number),
    }


def rates(judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the markets of a kind."""
    from tests.monitoring.planted_shifts import SHIFTS

    def pooled(name: str) -> float:
        return share(np.concatenate([each[name] for each in judged]))

    def by_shift(name: str) -> dict[str, float]:
        return {shift.name: share(np.concatenate([each[name][shift.name] for each in judged])) for shift in SHIFTS}

    return {
        "days": sum(len(each["alerts"]) for each in judged),
        "windows": sum(len(each["quiet"]) for each in judged),
        "alerts": pooled("alerts"),
        "largest_of_a_market": max(share(each["alerts"]) for each in judged),
        "psi_alerts": pooled("psi"),
        "quiet": pooled("quiet"),
        "found_window": by_shift("window"),
        "found_day": by_shift("day"),
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
