"""Measures of sessions across instruments: missing instruments, and changes of scale told apart from news.

A unit or price scale that changes moves all instruments by one ratio between two sessions, and stays. News may be as
large, but moves each instrument by its own, within the session, or comes back. A session is judged by those after it;
the newest, which has none, is called a change of scale only where its ratio is near a power of ten.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

GONE_DAYS = 14
"""A calendar whose last row is older than the panel's by more than this has no newest session."""


def newest_sessions(days: NDArray[np.datetime64], panels_last: np.datetime64) -> Booleans:
    """Whether each of a calendar's sessions (sorted) is its newest, which nothing follows."""
    newest = np.zeros(len(days), dtype=bool)
    if len(days) and panels_last - days[-1] <= np.timedelta64(GONE_DAYS, "D"):
        newest[-1] = True
    return newest


def missing_shares(sessions: pd.DataFrame, lost: NDArray[np.int64], least: int) -> dict[str, Floats]:
    """`missing_share` and `newest_missing_share` of sessions (`instruments`, `bars`, `newest`) that lose `lost` bars;
    NaN where fewer than `least` instruments are expected, or none has a bar."""
    expected, bars = (sessions[name].to_numpy() for name in ("instruments", "bars"))
    judged = (expected >= least) & (bars > 0)
    share = 1 - (bars - lost) / np.where(judged, np.maximum(expected, bars), np.nan)
    return past_and_newest("missing_share", share, sessions["newest"].to_numpy() > 0)


def past_and_newest(name: str, share: Floats, newest: Booleans) -> dict[str, Floats]:
    """A measure as two: of the sessions that others follow, and of the newest; NaN in the other one."""
    return {name: np.where(newest, np.nan, share), f"newest_{name}": np.where(newest, share, np.nan)}


def mark_scales(
    measured: Mapping[str, Floats], newest: Booleans, parameters: Mapping[str, Any]
) -> tuple[Floats, Floats]:
    """`price_scale` and `volume_scale` of one calendar's sessions, in their order.

    Parameters
    ----------
    measured
        `price_ratio`, `overnight_ratio`, `price_spread`, `volume_ratio`, NaN where not judged.
    newest
        Whether each session is the newest.
    parameters
        `scale_least`, `scale_spread`, `scale_overnight` (logarithms), `scale_sessions`, `power_tolerance`,
        `volume_scale_least`, `volume_power_tolerance`: see `include/expectations/sessions.json`.
    """
    with np.errstate(invalid="ignore"):
        price, volume = np.log(measured["price_ratio"]), np.log(measured["volume_ratio"])
        apart = np.abs(np.log(measured["overnight_ratio"]) - price)
    tenfold = _near_power(price, float(parameters["power_tolerance"]), 1)
    alike = (measured["price_spread"] <= parameters["scale_spread"]) & (apart <= parameters["scale_overnight"])
    prices = _stays(price, float(parameters["scale_least"]), 1) & np.where(newest, tenfold, alike | tenfold)
    hundredfold = _near_power(volume, float(parameters["volume_power_tolerance"]), 2)
    lasting = _stays(volume, float(parameters["volume_scale_least"]), int(parameters["scale_sessions"]))
    volumes = lasting & np.where(newest, hundredfold, True)
    return (
        np.where(prices, measured["price_ratio"], np.nan),
        np.where(volumes, measured["volume_ratio"], np.nan),
    )


def common_moves(price_ratio: Floats, parameters: Mapping[str, Any]) -> Booleans:
    """Sessions whose median price moves so far that it may be a change of scale."""
    with np.errstate(invalid="ignore"):
        found: Booleans = np.abs(np.log(price_ratio)) >= parameters["scale_least"]
    return found


def _stays(moves: Floats, least: float, sessions: int) -> Booleans:
    """Whether each session's move is of at least `least`, is not taken back by half within the next `sessions`, and
    takes none of those before back."""
    found = np.zeros(len(moves), dtype=bool)
    steps = np.nan_to_num(moves)
    for at in np.flatnonzero(np.abs(steps) >= least):
        half = abs(steps[at]) / 2
        after = np.abs(steps[at] + np.cumsum(steps[at + 1 : at + 1 + sessions]))
        before = np.abs(steps[at] + np.cumsum(steps[max(at - sessions, 0) : at][::-1]))
        found[at] = (after >= half).all() and (before >= half).all()
    return found


def _near_power(moves: Floats, tolerance: float, least: int) -> Booleans:
    """Whether a move is near a power of ten, up or down, of at least this exponent."""
    exponent = np.round(np.nan_to_num(moves) / np.log(10))
    found: Booleans = (np.abs(exponent) >= least) & (np.abs(np.nan_to_num(moves) - exponent * np.log(10)) <= tolerance)
    return found
