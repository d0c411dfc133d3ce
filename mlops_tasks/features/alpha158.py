"""Qlib's Alpha158 factor list: nine of the candlestick, four prices, 29 rolling families over five windows."""

from mlops_tasks.columns import HIGH, LOW, OPEN, VWAP

WINDOWS = (5, 10, 20, 30, 60)

_CANDLE = {
    "KMID": "($close-$open)/$open",
    "KLEN": "($high-$low)/$open",
    "KMID2": "($close-$open)/($high-$low+1e-12)",
    "KUP": "($high-Greater($open, $close))/$open",
    "KUP2": "($high-Greater($open, $close))/($high-$low+1e-12)",
    "KLOW": "(Less($open, $close)-$low)/$open",
    "KLOW2": "(Less($open, $close)-$low)/($high-$low+1e-12)",
    "KSFT": "(2*$close-$high-$low)/$open",
    "KSFT2": "(2*$close-$high-$low)/($high-$low+1e-12)",
}

_UP, _DOWN, _MOVE = "Greater({x}-Ref({x}, 1), 0)", "Greater(Ref({x}, 1)-{x}, 0)", "Abs({x}-Ref({x}, 1))"
_WEIGHTED_MOVE = "Abs($close/Ref($close, 1)-1)*$volume"


def _strength(series: str) -> tuple[str, str, str]:
    """Rises, falls and their difference, as shares of all movement (similar to the RSI)."""
    up, down, move = (f"Sum({part.format(x=series)}, {{d}})" for part in (_UP, _DOWN, _MOVE))
    return f"{up}/({move}+1e-12)", f"{down}/({move}+1e-12)", f"({up}-{down})/({move}+1e-12)"


_SUMP, _SUMN, _SUMD = _strength("$close")
_VSUMP, _VSUMN, _VSUMD = _strength("$volume")

_ROLLING = {
    "ROC": "Ref($close, {d})/$close",
    "MA": "Mean($close, {d})/$close",
    "STD": "Std($close, {d})/$close",
    "BETA": "Slope($close, {d})/$close",
    "RSQR": "Rsquare($close, {d})",
    "RESI": "Resi($close, {d})/$close",
    "MAX": "Max($high, {d})/$close",
    "MIN": "Min($low, {d})/$close",
    "QTLU": "Quantile($close, {d}, 0.8)/$close",
    "QTLD": "Quantile($close, {d}, 0.2)/$close",
    "RANK": "Rank($close, {d})",
    "RSV": "($close-Min($low, {d}))/(Max($high, {d})-Min($low, {d})+1e-12)",
    "IMAX": "IdxMax($high, {d})/{d}",
    "IMIN": "IdxMin($low, {d})/{d}",
    "IMXD": "(IdxMax($high, {d})-IdxMin($low, {d}))/{d}",
    "CORR": "Corr($close, Log($volume+1), {d})",
    "CORD": "Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), {d})",
    "CNTP": "Mean($close>Ref($close, 1), {d})",
    "CNTN": "Mean($close<Ref($close, 1), {d})",
    "CNTD": "Mean($close>Ref($close, 1), {d})-Mean($close<Ref($close, 1), {d})",
    "SUMP": _SUMP,
    "SUMN": _SUMN,
    "SUMD": _SUMD,
    "VMA": "Mean($volume, {d})/($volume+1e-12)",
    "VSTD": "Std($volume, {d})/($volume+1e-12)",
    "WVMA": f"Std({_WEIGHTED_MOVE}, {{d}})/(Mean({_WEIGHTED_MOVE}, {{d}})+1e-12)",
    "VSUMP": _VSUMP,
    "VSUMN": _VSUMN,
    "VSUMD": _VSUMD,
}


def alpha158() -> dict[str, str]:
    """Name to expression, in the order and the text of Qlib 0.9.7's default configuration (`Alpha158DL`)."""
    prices = {f"{name.upper()}0": f"${name}/$close" for name in (OPEN, HIGH, LOW, VWAP)}
    rolling = {f"{name}{d}": text.format(d=d) for name, text in _ROLLING.items() for d in WINDOWS}
    return {**_CANDLE, **prices, **rolling}
