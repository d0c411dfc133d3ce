"""The groups of features: of Alpha158's factors, and of technical indicators."""

import re
from collections.abc import Mapping
from enum import StrEnum

from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.sets import FeatureSet


class FactorGroup(StrEnum):
    """What a factor is made of."""

    K_BAR = "k_bar"
    """The shape of the day's candle."""
    PRICE = "price"
    """Levels of prices relative to the close: of the day, and means, extremes and quantiles of windows."""
    MOMENTUM = "momentum"
    """Direction of the close over a window: change, trend, place in the range, ups and downs."""
    VOLATILITY = "volatility"
    """Dispersion of the close over a window, plain and weighted by volume."""
    VOLUME = "volume"
    """Level, dispersion and direction of volume over a window."""
    CORRELATION = "correlation"
    """How price and volume go together over a window."""


_FAMILIES: Mapping[FactorGroup, str] = {
    FactorGroup.K_BAR: "KMID KLEN KMID2 KUP KUP2 KLOW KLOW2 KSFT KSFT2",
    FactorGroup.PRICE: "OPEN HIGH LOW VWAP MA MAX MIN QTLU QTLD",
    FactorGroup.MOMENTUM: "ROC BETA RSQR RESI RANK RSV IMAX IMIN IMXD CNTP CNTN CNTD SUMP SUMN SUMD",
    FactorGroup.VOLATILITY: "STD WVMA",
    FactorGroup.VOLUME: "VMA VSTD VSUMP VSUMN VSUMD",
    FactorGroup.CORRELATION: "CORR CORD",
}
"""Names without the length of the window."""

_WINDOW = re.compile(r"\d+$")


def alpha158_groups() -> dict[str, str]:
    """Factor to the value of its group, for all 158 in their order."""
    group_of = {name: str(group) for group, names in _FAMILIES.items() for name in names.split()}
    return {name: group_of[name if name in group_of else _WINDOW.sub("", name)] for name in alpha158()}


class IndicatorGroup(StrEnum):
    """Kind of a technical indicator: the module of the library `ta` that it is in."""

    TREND = "ta_trend"
    MOMENTUM = "ta_momentum"
    VOLATILITY = "ta_volatility"
    VOLUME = "ta_volume"
    RETURNS = "ta_returns"


OTHER = "other"
"""Group of a set's own factors, and of those of Alpha360."""

_INDICATORS: Mapping[IndicatorGroup, str] = {
    IndicatorGroup.TREND: "sma ema wma macd adx cci aroon dpo ichimoku kst mass_index psar stc trix vortex",
    IndicatorGroup.MOMENTUM: (
        "rsi stoch_rsi stochastic kdj awesome_oscillator kama ppo pvo roc tsi ultimate_oscillator williams_r"
    ),
    IndicatorGroup.VOLATILITY: "atr bollinger donchian keltner ulcer_index",
    IndicatorGroup.VOLUME: "adi cmf eom force_index mfi nvi obv vpt vwap",
    IndicatorGroup.RETURNS: "daily_return log_return cumulative_return",
}
"""Names of the catalogue."""


def indicator_kinds() -> dict[str, str]:
    """Indicator of the catalogue to the value of its group."""
    return {name: str(group) for group, names in _INDICATORS.items() for name in names.split()}


def groups_of(definition: FeatureSet) -> dict[str, str]:
    """Column to its group, for all of a set: factors that are computed as in Alpha158 in theirs, columns of indicators
    in that of their indicator, all others in `OTHER`."""
    factors, known, kinds = alpha158(), alpha158_groups(), indicator_kinds()
    groups = {
        name: known[name] if factors.get(name) == text else OTHER for name, text in definition.expressions.items()
    }
    return groups | {column: kinds[spec.indicator] for spec in definition.indicators for column in spec.columns}


def indicators_of(definition: FeatureSet) -> dict[str, str]:
    """Column to the name of the indicator, as the set calls it, that gives it; without the set's factors."""
    return {column: spec.name for spec in definition.indicators for column in spec.columns}
