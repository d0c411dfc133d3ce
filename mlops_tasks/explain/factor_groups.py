"""The groups of Alpha158's factors."""

import re
from collections.abc import Mapping
from enum import StrEnum

from mlops_tasks.features.alpha158 import alpha158


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
