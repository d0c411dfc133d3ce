"""A synthetic market with a planted, documented signal.

The truth, for instrument i and XNYS session t counted from `start`:

- log return  r[i,t] = beta_i * m_t + sigma_i * v_t * (k * S[i,t-2] + sqrt(1 - k^2) * e[i,t])
- common factor  m_t = d_t + 0.008 * v_t * N(0,1); beta_i uniform in [0.8, 1.2]; sigma_i uniform in [0.012, 0.018]; e
  standard normal
- trend  d_t = +0.0010 (rising) or -0.0010 (falling), a Markov chain with P(rising to falling) = 0.01 and back 0.02:
  legs of 100 and 50 sessions on average, a mean of +0.00033 a session
- volatility regime  v_t = 0.8 (calm) or 1.6 (stressed), a Markov chain with P(calm to stressed) = 0.02 and back 0.08
- planted signal  S = zscore(zscore(-5-day log return) + zscore(log(volume / its 5-day mean))), across all instruments:
  what fell on rising volume rises. It acts on the return from t+1 to t+2: label horizon 1, the first that can be
  traded with the knowledge of day t.
- k = `signal_strength` is the population correlation of S[.,t-2] with the idiosyncratic return of t. The population
  rank IC of S with the traded return is slightly less: 6/pi * asin(k/2), and a little dilution by the spread of beta
  and sigma. Over 4,000 sessions of 60 instruments with k = 0.08: mean daily rank IC 0.075 (standard error 0.002).
- volume: lognormal around a level of its own, first-order autoregressive (0.6), higher on days of large moves
- listings: 15% of the instruments start after session 0 (uniform in 20 to 400), 10% end (uniform in 300 to 1,500)
- suspensions: each day with probability 0.0005, for 1 to 10 sessions; the price moves on unseen, without rows
- splits: each day with probability 1/1500, two for one: the factor doubles, adjusted = raw * factor is continuous

Every session's draws depend on (seed, session) alone and the state only on the past, so that a longer run extends a
shorter one bit for bit. `instruments` and `seed` name the market.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, VOLUME, VWAP
from mlops_tasks.config import SyntheticSettings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.sources.parsed import (
    PARSE_ERROR,
    PARSED_COLUMNS,
    SOURCE_FILE,
    SOURCE_ROW,
    ParsedBars,
    RawFile,
)

SIGNAL_DAYS = 5
SIGNAL_LAG = 2
TREND = 0.0010
"""Size of the common factor's drift per session, in log return."""

_TRAITS = 2**40
"""A stream number that no session has."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class _Traits:
    """The constants of each instrument. Arrays of length `instruments`."""

    beta: Array
    sigma: Array
    volume_level: Array
    first_price: Array
    listed: Array
    delisted: Array


@dataclass(frozen=True)
class _Draws:
    """One session's random numbers."""

    regime: float
    market: float
    noise: Array
    shape: Array
    volume: Array
    events: Array
    trend: float


@dataclass(frozen=True)
class PlantedMarket:
    """The market and what is planted in it.

    `fields` maps each of `BAR_FIELDS` to (days, instruments), NaN where there is no bar; `signal` has that shape and no
    NaN; `trend` is d_t, (days,).
    """

    fields: dict[str, Array]
    signal: Array
    trend: Array


class SyntheticSource:
    """The synthetic market as a source."""

    name = "synthetic"

    def __init__(self, parameters: SyntheticSettings) -> None:
        self._parameters = parameters

    def read(self) -> ParsedBars:
        """All bars; `raw` has the digest of every cell."""
        frame = synthetic_bars(self._parameters)
        digest = hashlib.sha256("\n".join(frame[INSTRUMENT]).encode())
        for column in (DATETIME, *BAR_FIELDS):
            digest.update(frame[column].to_numpy().tobytes())
        return ParsedBars(frame, self.name, raw=(RawFile(self.name, digest.hexdigest(), len(frame)),))


def synthetic_bars(parameters: SyntheticSettings) -> pd.DataFrame:
    """The market's bars as `PARSED_COLUMNS`, sorted by session and instrument; raw prices, volume in shares."""
    days = trading_sessions(parameters)
    fields = simulate(parameters).fields
    present = ~np.isnan(fields[CLOSE])
    day, column = np.nonzero(present)
    names = np.array([f"SYN{i:03d}" for i in range(parameters.instruments)], dtype=object)
    frame = pd.DataFrame(
        {
            DATETIME: days.to_numpy()[day],
            INSTRUMENT: pd.array(names[column], dtype="str"),
            **{name: values[present] for name, values in fields.items()},
        }
    )
    frame[SOURCE_FILE] = pd.Categorical.from_codes(np.zeros(len(frame), dtype=np.int8), ["synthetic"])
    frame[SOURCE_ROW] = np.arange(1, len(frame) + 1)
    frame[PARSE_ERROR] = pd.Series(np.full(len(frame), None, dtype=object), dtype="str")
    return frame[list(PARSED_COLUMNS)]


def trading_sessions(parameters: SyntheticSettings) -> pd.DatetimeIndex:
    """The first `days` XNYS sessions from `start` on."""
    end = np.datetime64(parameters.start) + int(parameters.days * 1.5) + 30
    days = sessions("XNYS", parameters.start, end)[: parameters.days]
    return pd.DatetimeIndex(days.astype("datetime64[ns]"))


def simulate(parameters: SyntheticSettings) -> PlantedMarket:
    """The whole market, session by session."""
    traits = _traits(parameters)
    shape = (parameters.days, parameters.instruments)
    fields = {name: np.full(shape, np.nan) for name in (OPEN, HIGH, LOW, CLOSE, VOLUME, VWAP, FACTOR)}
    signal, trend = np.zeros(shape), np.zeros(parameters.days)
    returns, log_volume = np.zeros(shape), np.zeros(shape)
    price = np.log(traits.first_price)
    swell = np.zeros(parameters.instruments)
    factor = np.ones(parameters.instruments)
    suspended = np.zeros(parameters.instruments)
    stressed, rising = False, True
    k = parameters.signal_strength
    for t in range(parameters.days):
        draws = _draws(parameters, t)
        stressed = draws.regime >= 0.08 if stressed else draws.regime < 0.02
        regime = 1.6 if stressed else 0.8
        rising = draws.trend >= 0.01 if rising else draws.trend < 0.02
        trend[t] = TREND if rising else -TREND
        planted = signal[t - SIGNAL_LAG] if t >= SIGNAL_LAG else np.zeros(parameters.instruments)
        idiosyncratic = k * planted + np.sqrt(1 - k * k) * draws.noise
        factor_return = trend[t] + 0.008 * regime * draws.market
        returns[t] = traits.beta * factor_return + traits.sigma * regime * idiosyncratic
        swell = 0.6 * swell + 0.3 * draws.volume
        log_volume[t] = traits.volume_level + swell + 8.0 * np.abs(returns[t])
        factor = np.where(draws.events[0] < 1 / 1500, factor * 2.0, factor)
        starts = (draws.events[1] < 0.0005) & (suspended == 0)
        suspended = np.where(starts, 1 + np.floor(draws.events[2] * 10), np.maximum(suspended - 1, 0))
        before, price = price, price + returns[t]
        trades = (t >= traits.listed) & (t < traits.delisted) & (suspended == 0)
        for name, values in _bar(before, price, draws.shape, factor).items():
            fields[name][t] = np.where(trades, values, np.nan)
        fields[VOLUME][t] = np.where(trades, np.round(np.exp(log_volume[t]) * factor), np.nan)
        signal[t] = _signal(returns, log_volume, t)
    return PlantedMarket(fields, signal, trend)


def _traits(parameters: SyntheticSettings) -> _Traits:
    rng = np.random.default_rng([parameters.seed, _TRAITS])
    n = parameters.instruments
    late, ends = rng.random(n) < 0.15, rng.random(n) < 0.10
    return _Traits(
        beta=rng.uniform(0.8, 1.2, n),
        sigma=rng.uniform(0.012, 0.018, n),
        volume_level=rng.normal(14.0, 0.8, n),
        first_price=np.exp(rng.normal(4.0, 0.5, n)),
        listed=np.where(late, rng.integers(20, 400, n), 0).astype(np.float64),
        delisted=np.where(ends, rng.integers(300, 1500, n), np.inf),
    )


def _draws(parameters: SyntheticSettings, session: int) -> _Draws:
    rng = np.random.default_rng([parameters.seed, session])
    n = parameters.instruments
    return _Draws(
        regime=rng.random(),
        market=rng.standard_normal(),
        noise=rng.standard_normal(n),
        shape=rng.standard_normal((3, n)),
        volume=rng.standard_normal(n),
        events=rng.random((3, n)),
        trend=rng.random(),
    )


def _bar(before: Array, after: Array, shape: Array, factor: Array) -> dict[str, Array]:
    """Raw prices to four decimals; rounding is monotonic, so low <= open, close, vwap <= high survives it."""
    spread = 0.004
    first = before + 0.3 * spread * shape[0]
    high = np.maximum(first, after) + spread * np.abs(shape[1])
    low = np.minimum(first, after) - spread * np.abs(shape[2])
    logs = {OPEN: first, HIGH: high, LOW: low, CLOSE: after, VWAP: (first + high + low + after) / 4}
    return {name: np.round(np.exp(values) / factor, 4) for name, values in logs.items()} | {FACTOR: factor}


def _signal(returns: Array, log_volume: Array, t: int) -> Array:
    if t < SIGNAL_DAYS - 1:
        return np.zeros(returns.shape[1])
    window = slice(t - SIGNAL_DAYS + 1, t + 1)
    reversal = -returns[window].sum(axis=0)
    ratio = log_volume[t] - np.log(np.exp(log_volume[window]).mean(axis=0))
    return _zscore(_zscore(reversal) + _zscore(ratio))


def _zscore(values: Array) -> Array:
    result: Array = (values - values.mean()) / values.std()
    return result
