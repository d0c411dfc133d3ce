"""Compiled rolling-window kernels over many series at once.

Every kernel takes flat float64 series `x` (one instrument after the other, one value a calendar row; instrument i is
`x[offsets[i]:offsets[i+1]]`), ascending `windows` and fills `out` (slots, windows, values). A window is the last
`window` rows, fewer at a series' beginning; NaN and infinite values are left out, as pandas leaves them out, and a
window with none left is NaN. Every window is summed afresh, from its newest row to its oldest, so a value depends on
the rows of its window only and the shorter windows are met on the way to the longest. The inner loops run along time
for one lag: independent additions, which the compiler turns into vector instructions without changing any result.

Sums of squares and products are taken about the window's newest value: exact zeros for constant series, and no
cancellation beyond that between values of one window.

Compiled code is cached beside this file, or in the user's cache folder where that is not writable (`NUMBA_CACHE_DIR`).
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _fill(x: FloatArray, value: float) -> FloatArray:
    """`x` with `value` where it is not finite."""
    filled = np.empty_like(x)
    for t in range(len(x)):
        filled[t] = x[t] if np.isfinite(x[t]) else value
    return filled


@_compiled
def _is_finite(x: FloatArray) -> FloatArray:
    """1.0 where `x` is finite, else 0.0."""
    finite = np.empty_like(x)
    for t in range(len(x)):
        finite[t] = 1.0 if np.isfinite(x[t]) else 0.0
    return finite


@_compiled
def _newest(x: FloatArray, valid: FloatArray) -> FloatArray:
    """The newest valid value at or before each row: it lies in every window that has one."""
    newest = np.empty_like(x)
    last = 0.0
    for t in range(len(x)):
        if valid[t] == 1.0:
            last = x[t]
        newest[t] = last
    return newest


@_compiled
def _running(valid: FloatArray) -> FloatArray:
    """Number of valid rows before each row, and in all; integers, so differences are exact."""
    total = np.zeros(len(valid) + 1)
    for t in range(len(valid)):
        total[t + 1] = total[t] + valid[t]
    return total


@_compiled
def _count(total: FloatArray, t: int, window: int) -> float:
    """Valid rows in the window that ends at row t."""
    return total[t + 1] - total[max(t + 1 - window, 0)]


@_compiled
def counts(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: number of finite values."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        total = _running(_is_finite(x[begin:end]))
        for w in range(len(windows)):
            for t in range(end - begin):
                out[0, w, begin + t] = _count(total, t, windows[w])


@_compiled
def sums(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: sum."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        values = _fill(x[begin:end], 0.0)
        total = _running(_is_finite(x[begin:end]))
        sum_x = np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, s = values[: length - k], sum_x[k:]
                for j in range(length - k):
                    s[j] += past[j]
            lag = min(windows[w], length)
            for t in range(length):
                out[0, w, begin + t] = sum_x[t] if _count(total, t, windows[w]) > 0 else np.nan


@_compiled
def variances(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: variance (one degree of freedom less; NaN for fewer than two values)."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        valid = _is_finite(x[begin:end])
        values, total = _fill(x[begin:end], 0.0), _running(valid)
        centre = _newest(values, valid)
        sum_d, sum_dd = np.zeros(length), np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, is_valid, c = values[: length - k], valid[: length - k], centre[k:]
                s, ss = sum_d[k:], sum_dd[k:]
                for j in range(length - k):
                    d = (past[j] - c[j]) * is_valid[j]
                    s[j] += d
                    ss[j] += d * d
            lag = min(windows[w], length)
            for t in range(length):
                n = _count(total, t, windows[w])
                squares = max(sum_dd[t] - sum_d[t] * sum_d[t] / n, 0.0)
                out[0, w, begin + t] = squares / (n - 1.0) if n > 1.0 else np.nan


@_compiled
def trends(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Least-squares line through the window: slots slope a row, residual of the newest row, R squared."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        valid = _is_finite(x[begin:end])
        values, total = _fill(x[begin:end], 0.0), _running(valid)
        centre = _newest(values, valid)
        sum_d, sum_dd, sum_kd = np.zeros(length), np.zeros(length), np.zeros(length)
        sum_k, sum_kk = np.zeros(length), np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, is_valid, c = values[: length - k], valid[: length - k], centre[k:]
                s, ss, ks = sum_d[k:], sum_dd[k:], sum_kd[k:]
                sk, skk = sum_k[k:], sum_kk[k:]
                for j in range(length - k):
                    d = (past[j] - c[j]) * is_valid[j]
                    s[j] += d
                    ss[j] += d * d
                    ks[j] += k * d
                    sk[j] += k * is_valid[j]
                    skk[j] += k * k * is_valid[j]
            lag = min(windows[w], length)
            for t in range(length):
                n = _count(total, t, windows[w])
                lags = n * sum_kk[t] - sum_k[t] * sum_k[t]
                both = n * sum_kd[t] - sum_k[t] * sum_d[t]
                heights = n * sum_dd[t] - sum_d[t] * sum_d[t]
                slope = both / lags if n > 1.0 else np.nan
                here = values[t] - centre[t] if valid[t] == 1.0 else np.nan
                out[0, w, begin + t] = -slope
                out[1, w, begin + t] = here - (sum_d[t] - slope * sum_k[t]) / n
                out[2, w, begin + t] = both * both / (lags * heights) if n > 1.0 else np.nan


@_compiled
def highs(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: largest value."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        values = _fill(x[begin:end], -np.inf)
        best = np.full(length, -np.inf)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, b = values[: length - k], best[k:]
                for j in range(length - k):
                    b[j] = past[j] if past[j] > b[j] else b[j]
            lag = min(windows[w], length)
            for t in range(length):
                out[0, w, begin + t] = best[t] if best[t] > -np.inf else np.nan


@_compiled
def high_rows(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: 1-based row of the window's first maximum; like NumPy's argmax, that of its first NaN if it has one."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        values, total = _fill(x[begin:end], np.inf), _running(_is_finite(x[begin:end]))
        best, best_lag = np.full(length, -np.inf), np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, b, at = values[: length - k], best[k:], best_lag[k:]
                for j in range(length - k):
                    at[j] = k if past[j] >= b[j] else at[j]
                    b[j] = past[j] if past[j] >= b[j] else b[j]
            lag = min(windows[w], length)
            for t in range(length):
                rows = min(windows[w], t + 1)
                out[0, w, begin + t] = rows - best_lag[t] if _count(total, t, windows[w]) > 0 else np.nan


@_compiled
def ranks(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: rank of the newest value as a share of the values; ties have their mean rank; NaN where it is NaN."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        values, total = _fill(x[begin:end], np.nan), _running(_is_finite(x[begin:end]))
        below = np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past, now, b = values[: length - k], values[k:], below[k:]
                for j in range(length - k):
                    b[j] += (1.0 if past[j] < now[j] else 0.0) + (0.5 if past[j] == now[j] else 0.0)
            lag = min(windows[w], length)
            for t in range(length):
                rank = (below[t] + 0.5) / _count(total, t, windows[w])
                out[0, w, begin + t] = rank if np.isfinite(values[t]) else np.nan


@_compiled
def quantiles(x: FloatArray, offsets: IntArray, windows: IntArray, levels: FloatArray, out: FloatArray) -> None:
    """One slot a level: quantile with linear interpolation, from a sorted copy of the window that slides along."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        for w in range(len(windows)):
            ordered = np.empty(min(windows[w], end - begin) + 1)
            n = 0
            for t in range(begin, end):
                if np.isfinite(x[t]):
                    at = np.searchsorted(ordered[:n], x[t])
                    for j in range(n, at, -1):
                        ordered[j] = ordered[j - 1]
                    ordered[at] = x[t]
                    n += 1
                leaving = t - windows[w]
                if leaving >= begin and np.isfinite(x[leaving]):
                    n -= 1
                    for j in range(np.searchsorted(ordered[: n + 1], x[leaving]), n):
                        ordered[j] = ordered[j + 1]
                for q in range(len(levels)):
                    out[q, w, t] = _interpolate(ordered, n, levels[q])


@_compiled
def _interpolate(ordered: FloatArray, n: int, level: float) -> float:
    if n == 0:
        return np.nan
    position = level * (n - 1)
    lower = int(position)
    if lower == n - 1:
        return ordered[lower]
    return ordered[lower] + (ordered[lower + 1] - ordered[lower]) * (position - lower)


@_compiled
def comoments(x: FloatArray, y: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Over rows where both are finite: slots covariance (one degree of freedom less) and correlation."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        length = end - begin
        valid = _is_finite(x[begin:end]) * _is_finite(y[begin:end])
        xs, ys, total = _fill(x[begin:end], 0.0), _fill(y[begin:end], 0.0), _running(valid)
        x_centre, y_centre = _newest(xs, valid), _newest(ys, valid)
        sum_x, sum_y = np.zeros(length), np.zeros(length)
        sum_xx, sum_yy, sum_xy = np.zeros(length), np.zeros(length), np.zeros(length)
        lag = 0
        for w in range(len(windows)):
            for k in range(lag, min(windows[w], length)):
                past_x, past_y, is_valid = xs[: length - k], ys[: length - k], valid[: length - k]
                cx, cy = x_centre[k:], y_centre[k:]
                sx, sy, sxx, syy, sxy = sum_x[k:], sum_y[k:], sum_xx[k:], sum_yy[k:], sum_xy[k:]
                for j in range(length - k):
                    dx = (past_x[j] - cx[j]) * is_valid[j]
                    dy = (past_y[j] - cy[j]) * is_valid[j]
                    sx[j] += dx
                    sy[j] += dy
                    sxx[j] += dx * dx
                    syy[j] += dy * dy
                    sxy[j] += dx * dy
            lag = min(windows[w], length)
            for t in range(length):
                n = _count(total, t, windows[w])
                both = sum_xy[t] - sum_x[t] * sum_y[t] / n
                spread = (sum_xx[t] - sum_x[t] * sum_x[t] / n) * (sum_yy[t] - sum_y[t] * sum_y[t] / n)
                out[0, w, begin + t] = both / (n - 1.0) if n > 1.0 else np.nan
                out[1, w, begin + t] = both / np.sqrt(spread) if n > 1.0 else np.nan


@_compiled
def weighted_means(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slot 0: Qlib's WMA, the mean over the finite values of w * x with w = row / (sum of the rows 1..n)."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        for w in range(len(windows)):
            for t in range(begin, end):
                rows = min(windows[w], t - begin + 1)
                total, n = 0.0, 0.0
                for k in range(rows):
                    if np.isfinite(x[t - k]):
                        total += (rows - k) * x[t - k]
                        n += 1.0
                out[0, w, t] = total / (0.5 * rows * (rows + 1)) / n


@_compiled
def deviations(x: FloatArray, offsets: IntArray, windows: IntArray, out: FloatArray) -> None:
    """Slots mean absolute deviation, skewness, excess kurtosis (both unbiased; NaN for constants)."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        for w in range(len(windows)):
            for t in range(begin, end):
                first = max(begin, t + 1 - windows[w])
                _describe(x[first : t + 1], out[:, w, t])


@_compiled
def _describe(window: FloatArray, out: FloatArray) -> None:
    total, n, low, high = 0.0, 0.0, np.inf, -np.inf
    for value in window:
        if np.isfinite(value):
            total += value
            n += 1.0
            low, high = min(low, value), max(high, value)
    # A sum of equal values divided by their number need not be that value; constants must have no spread at all.
    mean = total / n if low < high else low
    absolute, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    for value in window:
        if np.isfinite(value):
            d = value - mean
            absolute += abs(d)
            second += d * d
            third += d * d * d
            fourth += d * d * d * d
    out[:] = np.nan
    if n > 0:
        out[0] = absolute / n
    if n >= 3:
        out[1] = n * np.sqrt(n - 1.0) / (n - 2.0) * third / second**1.5
    if n >= 4:
        shape = n * (n + 1.0) * (n - 1.0) / (n - 2.0) / (n - 3.0) * fourth / second**2
        out[2] = shape - 3.0 * (n - 1.0) ** 2 / (n - 2.0) / (n - 3.0)


@_compiled
def exponential_mean(x: FloatArray, offsets: IntArray, alpha: float, out: FloatArray) -> None:
    """Mean with weights (1 - alpha) ** lag over the finite values since the series' first row."""
    for i in range(len(offsets) - 1):
        weighted, weights = 0.0, 0.0
        for t in range(offsets[i], offsets[i + 1]):
            weighted, weights = weighted * (1.0 - alpha), weights * (1.0 - alpha)
            if np.isfinite(x[t]):
                weighted, weights = weighted + x[t], weights + 1.0
            out[t] = weighted / weights


@_compiled
def expanding_exponential_mean(x: FloatArray, offsets: IntArray, out: FloatArray) -> None:
    """Qlib's `EMA(x, 0)`: alpha is 2 / (1 + rows so far); rows that are not finite weigh, but add nothing."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        for t in range(begin, end):
            keep = 1.0 - 2.0 / (2.0 + t - begin)
            weighted, weights, weight, n = 0.0, 0.0, 1.0, 0
            for k in range(t - begin + 1):
                weights += weight
                if np.isfinite(x[t - k]):
                    weighted += weight * x[t - k]
                    n += 1
                weight *= keep
            out[t] = weighted / weights if n > 0 else np.nan


@_compiled
def shift(x: FloatArray, offsets: IntArray, rows: int, out: FloatArray) -> None:
    """The value of `rows` rows ago (negative: ahead); 0 means the series' first value, as in Qlib."""
    for i in range(len(offsets) - 1):
        begin, end = offsets[i], offsets[i + 1]
        for t in range(begin, end):
            source = begin if rows == 0 else t - rows
            out[t] = x[source] if begin <= source < end else np.nan


@_compiled
def scatter(values: FloatArray, positions: IntArray, out: NDArray[np.float32]) -> None:
    """Write `values` as float32 to their rows of `out`; a negative position is left out."""
    for t in range(len(values)):
        if positions[t] >= 0:
            out[positions[t]] = values[t]
