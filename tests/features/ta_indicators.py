"""The same indicators by the library `ta`, for comparison: one instrument's bars at a time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from ta import momentum, others, trend, volatility, volume

from mlops_tasks.features.indicators.specs import IndicatorSpec

Outputs = dict[str, pd.Series]
HLC, HLCV = ("high", "low", "close"), ("high", "low", "close", "volume")


def _take(bars: pd.DataFrame, fields: Iterable[str]) -> dict[str, pd.Series]:
    return {name: bars[name] for name in fields}


def _peer(build: type, fields: Iterable[str], outputs: Mapping[str, str], **renamed: str) -> Callable[..., Outputs]:
    """Outputs are methods of a class of `ta`; a parameter has the same name there, or the one in `renamed`."""

    def compute(bars: pd.DataFrame, parameters: Mapping[str, Any]) -> Outputs:
        indicator = build(
            **_take(bars, fields), **{renamed.get(name, name): value for name, value in parameters.items()}
        )
        return {name: _or_nan(getattr(indicator, method), bars) for name, method in outputs.items()}

    return compute


def _or_nan(method: Callable[[], pd.Series], bars: pd.DataFrame) -> pd.Series:
    try:
        return method()
    except IndexError:  # shorter than a window
        return pd.Series(np.nan, bars.index)


def _bands(channel: str) -> dict[str, str]:
    return {
        name: f"{channel}_{letter}band"
        for name, letter in zip(("mid", "high", "low", "width", "percent"), "mhlwp", strict=True)
    }


def _bollinger(bars: pd.DataFrame, parameters: Mapping[str, Any]) -> Outputs:
    indicator = volatility.BollingerBands(bars["close"], **parameters)
    names = {**_bands("bollinger"), "mid": "bollinger_mavg"}
    return {name: getattr(indicator, method)() for name, method in names.items()}


def _vpt(bars: pd.DataFrame, parameters: Mapping[str, Any]) -> Outputs:
    indicator = volume.VolumePriceTrendIndicator(
        bars["close"], bars["volume"], smoothing_factor=parameters["smoothing"] or None
    )
    return {"": indicator.volume_price_trend()}


def _kdj(bars: pd.DataFrame, parameters: Mapping[str, Any]) -> Outputs:
    """`ta` has no KDJ: its stochastic, smoothed by pandas."""
    raw = momentum.StochasticOscillator(bars["high"], bars["low"], bars["close"], parameters["window"]).stoch()
    k = raw.ewm(alpha=1 / parameters["smooth_k"], adjust=False).mean()
    d = k.ewm(alpha=1 / parameters["smooth_d"], adjust=False).mean()
    return {"k": k, "d": d, "j": 3 * k - 2 * d}


_OSCILLATOR = ("", "signal", "histogram")

PEERS: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], Outputs]] = {
    "sma": _peer(trend.SMAIndicator, ("close",), {"": "sma_indicator"}),
    "ema": _peer(trend.EMAIndicator, ("close",), {"": "ema_indicator"}),
    "wma": _peer(trend.WMAIndicator, ("close",), {"": "wma"}),
    "macd": _peer(trend.MACD, ("close",), dict(zip(_OSCILLATOR, ("macd", "macd_signal", "macd_diff"), strict=True))),
    "rsi": _peer(momentum.RSIIndicator, ("close",), {"": "rsi"}),
    "stochastic": _peer(momentum.StochasticOscillator, HLC, {"k": "stoch", "d": "stoch_signal"}),
    "kdj": _kdj,
    "stoch_rsi": _peer(momentum.StochRSIIndicator, ("close",), {"": "stochrsi", "k": "stochrsi_k", "d": "stochrsi_d"}),
    "bollinger": _bollinger,
    "atr": _peer(volatility.AverageTrueRange, HLC, {"": "average_true_range"}),
    "adx": _peer(trend.ADXIndicator, HLC, {"": "adx", "plus": "adx_pos", "minus": "adx_neg"}),
    "cci": _peer(trend.CCIIndicator, HLC, {"": "cci"}),
    "obv": _peer(volume.OnBalanceVolumeIndicator, ("close", "volume"), {"": "on_balance_volume"}),
    "mfi": _peer(volume.MFIIndicator, HLCV, {"": "money_flow_index"}),
    "williams_r": _peer(momentum.WilliamsRIndicator, HLC, {"": "williams_r"}, window="lbp"),
    "roc": _peer(momentum.ROCIndicator, ("close",), {"": "roc"}),
    "trix": _peer(trend.TRIXIndicator, ("close",), {"": "trix"}),
    "keltner": _peer(volatility.KeltnerChannel, HLC, _bands("keltner_channel"), original="original_version"),
    "donchian": _peer(volatility.DonchianChannel, HLC, _bands("donchian_channel")),
    "ichimoku": _peer(
        trend.IchimokuIndicator,
        ("high", "low"),
        {
            "conversion": "ichimoku_conversion_line",
            "base": "ichimoku_base_line",
            "a": "ichimoku_a",
            "b": "ichimoku_b",
        },
    ),
    "kst": _peer(
        trend.KSTIndicator,
        ("close",),
        {"": "kst", "signal": "kst_sig", "difference": "kst_diff"},
        signal_window="nsig",
    ),
    "tsi": _peer(momentum.TSIIndicator, ("close",), {"": "tsi"}),
    "ultimate_oscillator": _peer(momentum.UltimateOscillator, HLC, {"": "ultimate_oscillator"}),
    "awesome_oscillator": _peer(momentum.AwesomeOscillatorIndicator, ("high", "low"), {"": "awesome_oscillator"}),
    "kama": _peer(momentum.KAMAIndicator, ("close",), {"": "kama"}),
    "ppo": _peer(
        momentum.PercentagePriceOscillator,
        ("close",),
        dict(zip(_OSCILLATOR, ("ppo", "ppo_signal", "ppo_hist"), strict=True)),
    ),
    "pvo": _peer(
        momentum.PercentageVolumeOscillator,
        ("volume",),
        dict(zip(_OSCILLATOR, ("pvo", "pvo_signal", "pvo_hist"), strict=True)),
    ),
    "vortex": _peer(
        trend.VortexIndicator,
        HLC,
        {"plus": "vortex_indicator_pos", "minus": "vortex_indicator_neg", "difference": "vortex_indicator_diff"},
    ),
    "mass_index": _peer(trend.MassIndex, ("high", "low"), {"": "mass_index"}),
    "dpo": _peer(trend.DPOIndicator, ("close",), {"": "dpo"}),
    "aroon": _peer(
        trend.AroonIndicator,
        ("high", "low"),
        {"up": "aroon_up", "down": "aroon_down", "difference": "aroon_indicator"},
    ),
    "psar": _peer(
        trend.PSARIndicator,
        HLC,
        {
            "": "psar",
            "up": "psar_up",
            "down": "psar_down",
            "turns_up": "psar_up_indicator",
            "turns_down": "psar_down_indicator",
        },
    ),
    "stc": _peer(trend.STCIndicator, ("close",), {"": "stc"}),
    "ulcer_index": _peer(volatility.UlcerIndex, ("close",), {"": "ulcer_index"}),
    "cmf": _peer(volume.ChaikinMoneyFlowIndicator, HLCV, {"": "chaikin_money_flow"}),
    "adi": _peer(volume.AccDistIndexIndicator, HLCV, {"": "acc_dist_index"}),
    "eom": _peer(
        volume.EaseOfMovementIndicator,
        ("high", "low", "volume"),
        {"": "ease_of_movement", "signal": "sma_ease_of_movement"},
    ),
    "vpt": _vpt,
    "force_index": _peer(volume.ForceIndexIndicator, ("close", "volume"), {"": "force_index"}),
    "nvi": _peer(volume.NegativeVolumeIndexIndicator, ("close", "volume"), {"": "negative_volume_index"}),
    "vwap": _peer(volume.VolumeWeightedAveragePrice, HLCV, {"": "volume_weighted_average_price"}),
    "daily_return": _peer(others.DailyReturnIndicator, ("close",), {"": "daily_return"}),
    "log_return": _peer(others.DailyLogReturnIndicator, ("close",), {"": "daily_log_return"}),
    "cumulative_return": _peer(others.CumulativeReturnIndicator, ("close",), {"": "cumulative_return"}),
}
"""By our name: from an instrument's bars (index 0, 1, 2, ...) and our parameters to our outputs."""


def ta_columns(bars: pd.DataFrame, spec: IndicatorSpec) -> pd.DataFrame:
    """What `ta` gives for one instrument, in our columns; all NaN where it fails on a series shorter than a window."""
    try:
        outputs = PEERS[spec.indicator](bars, spec.parameters)
    except (IndexError, ValueError):
        return pd.DataFrame(np.nan, bars.index, list(spec.columns))
    return pd.DataFrame({f"{spec.name}_{name}" if name else spec.name: values for name, values in outputs.items()})


def expected_columns(bars: pd.DataFrame, spec: IndicatorSpec) -> pd.DataFrame:
    """The values of `ta` with our deviations applied."""
    columns = ta_columns(bars, spec).astype(float)
    deviate = _DEVIATIONS.get(spec.indicator)
    return (deviate(bars, spec, columns) if deviate else columns).replace([np.inf, -np.inf], np.nan)


def _known_atr(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """Zeros before the first range mean are not known."""
    return columns.where(np.arange(len(bars))[:, None] >= spec.parameters["window"] - 1)


def _known_adx(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """Zeros before the first sums are not known; the first value of both indicators is Wilder's, not zero."""
    window, rows = int(spec.parameters["window"]), np.arange(len(bars))
    first = np.array([2 * window - 1, window, window])
    columns = columns.where(rows[:, None] >= first)
    if len(bars) <= window:
        return columns
    rise, fall = bars["high"].diff(), -bars["low"].diff()
    previous = bars["close"].shift()
    ranges = (np.maximum(bars["high"], previous) - np.minimum(bars["low"], previous))[1 : window + 1].sum()
    for column, side, other in zip(spec.columns[1:], (rise, fall), (fall, rise), strict=True):
        moves = side.where((side > other) & (side > 0), 0.0)[1 : window + 1].sum()
        columns.loc[window, column] = 100 * moves / ranges if ranges else 0.0
    return columns


def _moving_cci(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """Without a move of the typical price there is no value."""
    price = (bars["high"] + bars["low"] + bars["close"]) / 3.0
    rolling = price.rolling(int(spec.parameters["window"]))
    return columns.where((rolling.max() > rolling.min()).to_numpy()[:, None])


def _fresh_bollinger(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """The deviation of each window afresh: the running one of pandas keeps a residue of what has left it."""
    window, reach = int(spec.parameters["window"]), float(spec.parameters["window_dev"])
    close, mid = bars["close"].to_numpy(), columns[spec.columns[0]].to_numpy()
    deviation = np.full(len(bars), np.nan)
    if len(bars) >= window:
        windows = np.lib.stride_tricks.sliding_window_view(close, window)
        deviation[window - 1 :] = np.sqrt(((windows - mid[window - 1 :, None]) ** 2).mean(axis=1))
    high, low = mid + reach * deviation, mid - reach * deviation
    np.testing.assert_allclose(columns[spec.columns[1]], high, rtol=1e-6)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = (mid, high, low, (high - low) / mid * 100, (close - low) / (high - low))
    return pd.DataFrame(dict(zip(spec.columns, values, strict=True)))


def _causal_kst(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """The formula of `ta`, without the mean of all closes before the first one."""
    p, close = spec.parameters, bars["close"]
    means = [close.pct_change(p[f"roc{n}"]).rolling(p[f"window{n}"]).mean() for n in (1, 2, 3, 4)]
    line = 100 * (means[0] + 2 * means[1] + 3 * means[2] + 4 * means[3])
    signal = line.rolling(p["signal_window"], min_periods=0).mean()
    return pd.DataFrame(dict(zip(spec.columns, (line, signal, line - signal), strict=True)))


def _causal_ichimoku(bars: pd.DataFrame, spec: IndicatorSpec, columns: pd.DataFrame) -> pd.DataFrame:
    """Shifted spans begin where they begin, not with their mean."""
    if spec.parameters["visual"]:
        columns.iloc[: int(spec.parameters["window2"]), 2:] = np.nan
    return columns


_DEVIATIONS: dict[str, Callable[[pd.DataFrame, IndicatorSpec, pd.DataFrame], pd.DataFrame]] = {
    "atr": _known_atr,
    "adx": _known_adx,
    "bollinger": _fresh_bollinger,
    "cci": _moving_cci,
    "kst": _causal_kst,
    "ichimoku": _causal_ichimoku,
}
