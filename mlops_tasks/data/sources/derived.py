"""Columns derived from others: raw prices, a factor from an adjusted close, vwap from the money traded."""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRECLOSE, PRICES, VOLUME, VWAP
from mlops_tasks.config import ColumnsOfSource, Settings
from mlops_tasks.data.exchanges.calendars import AUTO
from mlops_tasks.data.sources.column_names import ADJUSTED_CLOSE, AMOUNT
from mlops_tasks.data.sources.parsed import columns_of
from mlops_tasks.data.sources.settings_named import SettingsNamed
from mlops_tasks.errors import SourceError

log = logging.getLogger(__name__)

Prices = Literal["adjusted", "raw"]

VWAP_TOLERANCE = 1e-3
"""Share of a price by which a rounded vwap may lie outside low to high."""
LEAST_FITTING_SHARE = 0.95
"""Share of the bars with an amount for which amount / volume must lie between low and high in one unit."""
SHARES_PER_LOT = 100
MOST_ACTIONS = 0.02
"""Largest share of rows that may be corporate actions; a stock has a few a year."""
USUAL_ACTIONS = 3
"""Number of actions per instrument and year above which there is a warning."""
TELLING_YEARS = 5
"""Instrument-years in which some action is to be expected."""
LARGE_STEP, SMALL_PART = 0.2, 0.25
"""Log of a step above which it is compared with the moves around it, and the part of it by which they may differ."""
_ROWS_A_YEAR = 244
_POWERS = tuple(range(-6, 7))
"""Units that are tried: powers of ten between the unit of the amount and that of price times volume."""
_SAME = 1e-9
_MOST_DECIMALS = 8
_FLOAT32 = 6e-8
"""Relative rounding of a number that was a float32."""


def derive_fields(frame: pd.DataFrame, settings: Settings, name: str, spec: ColumnsOfSource) -> pd.DataFrame:
    """Parsed rows as `parsed.columns_of`: raw prices, factor, and vwap where the source has none.

    Raises
    ------
    SourceError
        There is an adjusted close beside prices without a factor, and nobody has said what it is for. Or the factor is
        to be made from a preclose that is missing or is something else, or from prices that are adjusted.
    """
    adjusted, prices = spec.adjusted or settings.data.adjusted, spec.prices or settings.data.prices
    missing = frame[[FACTOR, VWAP]].isna().all()
    named = SettingsNamed(name, name in settings.data.sources)
    if spec.factor is not None:
        if spec.prices == "adjusted":
            raise SourceError(
                f"{name}: rule factor_from_preclose: `prices: adjusted` says that the prices are adjusted already, and "
                f"a factor from preclose needs them as traded; {named.to('prices', 'raw')}, or "
                f"{named.to('factor', 'null')}"
            )
        factor = preclose_factor(frame, named)
        frame, prices, missing[FACTOR] = frame.assign(**{FACTOR: factor}), "raw", False
    elif ADJUSTED_CLOSE in frame and missing[FACTOR]:
        factor = adjusted_factor(frame, adjusted, name, named=named.named)
        if factor is not None:
            frame, prices, missing[FACTOR] = frame.assign(**{FACTOR: factor}), "raw", False
    frame = to_raw(frame, prices)
    if AMOUNT in frame and missing[VWAP]:
        frame[VWAP] = traded_price(frame, name)
        missing[VWAP] = bool(frame[VWAP].isna().all())
    absent = list(_absent(missing, settings, named if PRECLOSE in frame else None))
    if absent:
        log.warning("%s has no %s", name, "; no ".join(absent))
    return frame[columns_of(frame.columns)]


def to_raw(frame: pd.DataFrame, prices: Prices) -> pd.DataFrame:
    """Parsed rows with raw prices: adjusted / factor in float64, so that raw * factor gives a float32 source back
    exactly.

    `prices` says what open, high, low, close, vwap and preclose are where there is a factor. An instrument without any
    factor is unadjusted (factor 1); a single missing factor stays missing and fails validation.
    """
    factor = frame[FACTOR]
    absent = factor.isna().to_numpy()
    if absent.all():
        return frame.assign(**{FACTOR: 1.0})
    if absent.any():
        known = frame.loc[~absent, INSTRUMENT].unique()
        factor = factor.mask(absent & ~frame[INSTRUMENT].isin(known).to_numpy(), 1.0)
    if prices == "raw":
        return frame.assign(**{FACTOR: factor})
    divisor = factor.where(factor > 0, 1.0)
    divided = [column for column in (*PRICES, VWAP, PRECLOSE) if column in frame]
    return frame.assign(**{FACTOR: factor}, **{column: frame[column] / divisor for column in divided})


def adjusted_factor(frame: pd.DataFrame, choice: str | None, name: str, *, named: bool) -> Any:
    """(n,) adjusted / close with the effect of rounding removed, or None where it is to be ignored or says nothing.

    NaN where one of the two is missing or not above zero.

    Raises
    ------
    SourceError
        The two differ, and `choice` is None.
    """
    close, adjusted = frame[CLOSE].to_numpy(), frame[ADJUSTED_CLOSE].to_numpy()
    usable = (close > 0) & (adjusted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(usable, adjusted / close, np.nan)
    if choice == "ignore" or not usable.any() or np.nanmax(np.abs(ratio - 1)) < _SAME:
        return None
    if choice is None:
        where = f"data.sources.{name}.adjusted" if named else "data.adjusted (MLOPS_DATA__ADJUSTED)"
        raise SourceError(
            f"{name}: rule adjusted_close_chosen: there is an adjusted close beside the close, and no factor: without "
            f"one, dividends and splits stay in the returns; set {where} to `factor` (adjusted / close is the factor, "
            "and the prices are as traded) or to `ignore`"
        )
    codes, _ = pd.factorize(frame[INSTRUMENT])
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = ratio * (_rounding(close, codes) / close + _rounding(adjusted, codes) / adjusted)
    return _levels_of(frame, ratio, bound)


def preclose_factor(frame: pd.DataFrame, named: SettingsNamed) -> Any:
    """(n,) the factor that follows from the exchange's own adjustments: 1 on an instrument's first day, multiplied by
    the previous close over `preclose` at each action.

    A difference of at most half a unit of preclose's last decimal is rounding, not an action. Rows without a close or
    preclose have no action of their own: that of a day without a trade takes effect with the next one. A step that a
    wrong number or a missing row may explain as well is ignored: it would stay in all later factors. See `_doubts`.

    Raises
    ------
    SourceError
        There is a factor; there is no preclose; or it is not the previous close on most days.
    """
    problem, remedy = None, named.to("factor", "null")
    if not frame[FACTOR].isna().all():
        problem = "there is a factor, which takes precedence over one from preclose"
    elif PRECLOSE not in frame:
        problem, remedy = "there is no preclose to make a factor from", f"name it in `columns`, or {remedy}"
    if problem is not None:
        raise SourceError(f"{named.source}: rule factor_from_preclose: {problem}; {remedy}")
    codes, _ = pd.factorize(frame[INSTRUMENT])
    days, close, before = (frame[column].to_numpy() for column in (DATETIME, CLOSE, PRECLOSE))
    order = np.lexsort((days, codes))
    order = order[(codes[order] >= 0) & ~np.isnat(days[order])]
    bars = order[close[order] > 0]
    begins = np.concatenate([[True], np.diff(codes[bars]) != 0])[: len(bars)]
    another = begins | np.concatenate([[True], days[bars][1:] != days[bars][:-1]])[: len(bars)]
    bars, begins = bars[another], begins[another]
    known, last = before[bars[1:]], close[bars[:-1]]
    told = ~begins[1:] & (known > 0)
    places = np.flatnonzero(told & (np.abs(known - last) > 1.01 * _rounding(before, codes)[bars[1:]]))
    over_gap = _over_gaps(codes, days, order, bars[before[bars] > 0], (bars[places], bars[places + 1]))
    differing, count = int((~over_gap).sum()), int(told.sum())
    if not count or differing > max(3, MOST_ACTIONS * count):
        raise SourceError(
            f"{named.source}: rule factor_from_preclose: preclose differs from the previous bar's close in "
            f"{differing} of {count} rows, so it is something else, or prices are adjusted; {remedy}"
        )
    wrong_close, wrong_preclose = _doubts(frame, bars, begins, places)
    action = places[~(over_gap | wrong_close | wrong_preclose)]
    steps = np.ones(len(frame))
    steps[bars[action + 1]] = last[action] / known[action]
    factor = np.ones(len(frame))
    factor[order] = pd.Series(steps[order]).groupby(codes[order]).cumprod().to_numpy()
    _tell_actions(named.source, len(action), len(np.unique(codes[bars[action]])), count / _ROWS_A_YEAR)
    if len(action) < len(places):
        log.warning(
            "%s: preclose and the previous close differ in %s rows without an action: in %s the previous close seems "
            "wrong, in %s preclose does, and %s come after sessions without a row",
            *(named.source, len(places) - len(action), int((wrong_close & ~over_gap).sum())),
            *(int((wrong_preclose & ~wrong_close & ~over_gap).sum()), int(over_gap.sum())),
        )
    return factor


def _tell_actions(name: str, actions: int, instruments: int, years: float) -> None:
    """Log how many actions preclose shows. None in years, or very many, suggest that it is something else."""
    if not actions and years > TELLING_YEARS:
        log.warning(
            "%s has no factor: preclose shows no action in %.0f instrument-years, as if it were only the previous "
            "close, or adjusted like the prices; these count as unadjusted, so that a split looks like a fall",
            *(name, years),
        )
        return
    level = logging.WARNING if actions > max(3, USUAL_ACTIONS * years) else logging.INFO
    log.log(
        level,
        "%s: preclose shows %s actions in %s instruments, from which the factor is made",
        *(name, actions, instruments),
    )


def _doubts(frame: pd.DataFrame, bars: Any, begins: Any, places: Any) -> tuple[Any, Any]:
    """Two (m,) bool of the steps from `bars[places]` to the bars after them: the previous close seems wrong, as it
    lies outside its own range or the step only takes back a jump of that day; preclose seems wrong, as the open does
    not follow it. Only steps above `LARGE_STEP` (log) are compared with jumps and opens."""
    prior, at = bars[places], bars[places + 1]
    opened, high, low, close, before = (frame[each].to_numpy() for each in (OPEN, HIGH, LOW, CLOSE, PRECLOSE))
    last, known = close[prior], before[at]
    outside = (last < low[prior] * (1 - VWAP_TOLERANCE)) | (last > high[prior] * (1 + VWAP_TOLERANCE))
    outside &= low[prior] > 0  # a missing range says nothing
    earlier = np.where(begins[places], np.nan, close[bars[places - 1]])
    earlier = np.where(before[prior] > 0, before[prior], earlier)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.log(last / known)
        undone = np.abs(np.log(known / earlier)) < SMALL_PART * np.abs(step)
        unfollowed = np.abs(np.log(opened[at] / last)) < SMALL_PART * np.abs(step)
    large = np.abs(step) > LARGE_STEP
    return outside | (large & undone), large & unfollowed


def _over_gaps(codes: Any, days: Any, order: Any, traded: Any, steps: tuple[Any, Any]) -> Any:
    """(m,) bool: whether the instrument lacks the row of a session between the two rows of a step.

    A session is a day on which most of the instruments trade that do so on both days; `traded` are the rows that show
    it, `order` all rows sorted by instrument and day.
    """
    prior, at = steps
    found = np.zeros(len(at), dtype=bool)
    if not (days[at] - days[prior] > np.timedelta64(1, "D")).any():
        return found
    dates = np.unique(days[order])
    trades = np.zeros((codes.max() + 1, len(dates)), dtype=bool)
    trades[codes[traded], np.searchsorted(dates, days[traded])] = True
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(order))
    spans = zip(np.searchsorted(dates, days[prior]).tolist(), np.searchsorted(dates, days[at]).tolist(), strict=True)
    for place, (first, last) in enumerate(spans):
        if last - first < 2:
            continue
        peers = trades[:, first] & trades[:, last]
        peers[codes[at[place]]] = False
        if peers.any():
            sessions = dates[first + 1 : last][trades[peers, first + 1 : last].mean(axis=0) > 0.5]
            own = days[order[rank[prior[place]] : rank[at[place]]]]
            found[place] = not np.isin(sessions, own).all()
    return found


def levels(ratio: Any, bound: Any, begins: Any) -> Any:
    """(n,) a step function with the rounding removed: a step is where no single value is left from which all since
    the last step may have been rounded.

    Parameters
    ----------
    ratio
        (n,) in the order of days, known and above zero.
    bound
        (n,) how far rounding may move each value.
    begins
        (n,) bool: where another instrument begins.
    """
    made, start, low, high = np.empty(len(ratio)), 0, -np.inf, np.inf
    bounds = zip((ratio - bound).tolist(), (ratio + bound).tolist(), begins.tolist(), strict=True)
    for place, (least, most, first) in enumerate(bounds):
        if first or least > high or most < low:
            made[start:place] = (low + high) / 2 if place else 0.0
            start, low, high = place, least, most
        else:
            low, high = max(low, least), min(high, most)
    made[start:] = (low + high) / 2
    return made


def traded_price(frame: pd.DataFrame, name: str) -> Any:
    """(n,) vwap = amount / volume of raw bars, in the unit that brings it between low and high; else NaN.

    Vendors give the volume in shares or in lots of 100, the amount in units or thousands of the currency. The unit is
    the power of ten in which the most bars fit, if `LEAST_FITTING_SHARE` of them do; a bar that does not fit has none.
    """
    low, high = frame[LOW].to_numpy() * (1 - VWAP_TOLERANCE), frame[HIGH].to_numpy() * (1 + VWAP_TOLERANCE)
    amount, volume = frame[AMOUNT].to_numpy(), frame[VOLUME].to_numpy()
    usable = (amount > 0) & (volume > 0) & (low > 0) & (high >= low)
    price = np.divide(amount, volume, out=np.full(len(frame), np.nan), where=usable)
    middle = np.median(price[usable] / np.sqrt(low[usable] * high[usable])) if usable.any() else np.nan
    unit = -round(float(np.log10(middle))) if usable.any() else 0
    price = price * 10.0**unit
    fits = (price >= low) & (price <= high)
    if not usable.any() or unit not in _POWERS or fits.sum() < LEAST_FITTING_SHARE * usable.sum():
        log.warning("%s: amount / volume lies between low and high in no unit, so there is no vwap from them", name)
        return np.full(len(frame), np.nan)
    _tell_unit(name, unit)
    raw_low, raw_high = frame[LOW].to_numpy(), frame[HIGH].to_numpy()
    return np.where(fits, np.clip(price, raw_low, raw_high), np.nan)


def _tell_unit(name: str, unit: int) -> None:
    """Log how vwap was made. A volume seems to be in lots if turnover is a hundredth of what it should be."""
    if unit in (-2, 1):
        log.warning(
            "%s: vwap is amount / volume times %g, which looks like a volume in lots of %s shares: the volume is taken "
            "as it stands; deliver shares",
            *(name, 10.0**unit, SHARES_PER_LOT),
        )
    else:
        log.info("%s: vwap is amount / volume%s", name, f" times {10.0**unit:g}" if unit else "")


def _absent(missing: Any, settings: Settings, preclose: SettingsNamed | None) -> Iterator[str]:
    """The missing columns, with what that means. `preclose` names the settings of a source that has one."""
    if missing[FACTOR]:
        made = f", or make it from preclose: {preclose.to('factor', 'from_preclose')}" if preclose else ""
        yield f"factor: its prices count as unadjusted, so that a split looks like a fall (`columns`: factor{made})"
    if missing[VWAP]:
        yield "vwap: features of it are empty (`columns`: vwap, or amount)"
    if missing[FACTOR] and settings.calendar.name == AUTO:
        yield "calendar: each instrument's is found from its days (calendar.name)"


def _levels_of(frame: pd.DataFrame, ratio: Any, bound: Any) -> Any:
    """`levels` of each instrument in the order of its days; NaN stays."""
    codes, _ = pd.factorize(frame[INSTRUMENT])
    order = np.lexsort((frame[DATETIME].to_numpy(), codes))
    order = order[~np.isnan(ratio[order])]
    begins = np.concatenate([[True], np.diff(codes[order]) != 0])[: len(order)]
    made = np.full(len(frame), np.nan)
    made[order] = levels(ratio[order], bound[order], begins)
    return made


def _rounding(values: Any, codes: Any) -> Any:
    """(n,) how far a number may lie from the one that was rounded: half a unit of the last decimal that occurs among
    those of its instrument."""
    half = np.zeros(codes.max(initial=-1) + 2)
    open_rows = np.flatnonzero(np.isfinite(values))
    for decimals in range(_MOST_DECIMALS):
        scaled = values[open_rows] * 10.0**decimals
        more = np.abs(scaled - np.rint(scaled)) > np.abs(scaled) * _FLOAT32 + 1e-6
        finer = np.zeros(len(half), dtype=bool)
        finer[codes[open_rows[more]]] = True
        half[codes[open_rows]] = np.where(finer[codes[open_rows]], 0, 0.5 * 10.0**-decimals)
        open_rows = open_rows[finer[codes[open_rows]]]
    return np.maximum(half[codes], np.abs(values) * _FLOAT32)
