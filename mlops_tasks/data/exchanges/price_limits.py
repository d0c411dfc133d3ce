"""Daily price limits: how far a close may move in a day, by calendar, board and day.

Limits are half a percentage point below the exchange's own: a limit price is rounded to the tick, so a share with a
low price stops below its nominal 10%. They apply to adjusted closes, since exchanges take the previous close without
the dividend or split of the day.

| calendar | board | codes | limit |
| --- | --- | --- | --- |
| XSHG | main boards of Shanghai and Shenzhen | all others | 9.5% |
| XSHG | STAR | 688*, 689* | 19.5% |
| XSHG | ChiNext | 300*, 301*, 302* | 9.5%, 19.5% from 2020-08-24 on |
| XSHG | Beijing | 4*, 8*, 92* | 29.5% |
| all others | | | none |

Not known from a code, and so not in the rules: shares under special treatment (ST: 5% on the main boards), and the
days after a listing that have no limit. A share under special treatment stays within the wider limit, so none of its
moves is taken for an action, and an action between 5% and the wider limit is not proved by the limit. A portfolio
counts its bars at the 5% limit as tradable, unless `portfolio.limit_threshold` is set.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.exchanges.calendars import instrument_calendars

Floats = np.ndarray[Any, np.dtype[np.float64]]
Limits = Callable[[pd.MultiIndex], Floats]
"""Limits of the rows of an index with levels instrument and datetime, as `price_limits` gives them."""

A_SHARES = "XSHG"
MAIN_BOARD = 0.095


@dataclass(frozen=True)
class Board:
    """A board with a limit of its own: which six-digit codes it has, and since when the limit holds."""

    codes: re.Pattern[str]
    limit: float
    since: np.datetime64


BOARDS = (
    Board(re.compile(r"68[89]\d{3}"), 0.195, np.datetime64("2019-07-22")),
    Board(re.compile(r"30[012]\d{3}"), 0.195, np.datetime64("2020-08-24")),
    Board(re.compile(r"[48]\d{5}|92\d{4}"), 0.295, np.datetime64("2021-11-15")),
)
"""The boards of Shanghai, Shenzhen and Beijing that do not have the main boards' limit."""

_CODE = re.compile(r"(?<!\d)\d{6}(?!\d)")
"""Of SH600000, 600000.SS, sh.600000 and 600000."""


def price_limits(index: pd.MultiIndex, calendars: Mapping[str, str]) -> Floats:
    """The limit of each row of `index`, which has levels instrument and datetime; infinite where there is none.

    Parameters
    ----------
    calendars
        Instrument to calendar; see `calendars_of`.

    Returns
    -------
    (len(index),): the move of a close (0.095: 9.5%) from which on it cannot be bought, and below whose negative it
    cannot be sold.
    """
    limits = np.full(len(index), np.inf)
    names = index.get_level_values(INSTRUMENT)
    days = index.get_level_values(DATETIME).to_numpy().astype("datetime64[D]")
    for name, rows in pd.Series(range(len(index))).groupby(np.asarray(names)).indices.items():
        if calendars[str(name)] == A_SHARES:
            limits[rows] = _a_share_limits(str(name), days[rows])
    return limits


def calendars_of(index: pd.DataFrame, calendar: str) -> dict[str, str]:
    """Instrument to calendar, from a vintage's bars (columns datetime, instrument): `auto` infers it from their days
    and names.

    Raises
    ------
    ConfigError
        The named calendar is unknown.
    """
    codes, names = pd.factorize(index[INSTRUMENT])
    days = index[DATETIME].to_numpy().astype("datetime64[D]")
    found = instrument_calendars(calendar, codes, days, len(names), [str(name) for name in names])
    return dict(zip(names.tolist(), found, strict=True))


def _a_share_limits(name: str, days: np.ndarray[Any, np.dtype[np.datetime64]]) -> Floats:
    code = _CODE.search(name)
    limits = np.full(len(days), MAIN_BOARD)
    for board in BOARDS:
        if code and board.codes.fullmatch(code[0]):
            limits[days >= board.since] = board.limit
    return limits
