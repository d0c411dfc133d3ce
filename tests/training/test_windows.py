"""A window is the row's own instrument on the days up to the row's, zeros where there is no bar; nothing is copied."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.modeling.windows import (
    PanelWindows,
    aligned,
    batches,
    epoch_order,
    history_start,
)

FEATURES = 3


@st.composite
def panels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a panel with holes, by day: features, day, instrument. Days without any bar may be among them."""
    days, instruments = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    present = np.array(draw(st.lists(st.booleans(), min_size=days * instruments, max_size=days * instruments)))
    day, instrument = np.divmod(np.flatnonzero(present), instruments)
    rows = np.random.default_rng(0).standard_normal((len(day), FEATURES)).astype(np.float32)
    return rows, day.astype(np.int32), instrument.astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(panel=panels(), window=st.integers(1, 15), data=st.data())
def test_gather_is_a_loop_over_days(panel, window, data):
    """Missing bars, days before the first and any order of rows included."""
    rows, day, instrument = panel
    found = {(int(d), int(i)): row for d, i, row in zip(day, instrument, rows, strict=True)}
    asked = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if len(rows) else [], dtype=int)
    expected = np.zeros((len(asked), window, FEATURES), dtype=np.float32)
    for n, row in enumerate(asked):
        for back in range(window):
            expected[n, window - 1 - back] = found.get((int(day[row]) - back, int(instrument[row])), 0.0)
    gathered = PanelWindows.of(rows, day, instrument, window).gather(asked)
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, expected)


@settings(max_examples=40, deadline=None)
@given(panel=panels(), window=st.integers(1, 15), data=st.data())
def test_a_window_ends_with_its_day(panel, window, data):
    """Whatever happens to features after day t, no window of a row up to t changes."""
    rows, day, instrument = panel
    t = data.draw(st.integers(0, 12))
    changed = np.where((day > t)[:, None], np.float32(9e9), rows)
    asked = np.flatnonzero(day <= t)
    before, after = (PanelWindows.of(each, day, instrument, window).gather(asked) for each in (rows, changed))
    np.testing.assert_array_equal(before, after)


def test_no_window_is_copied_before_it_is_looked_at():
    """An index takes some bytes a row, a hundredth of what windows of 20 days would; a batch takes its own windows."""
    days, instruments, features, window = 400, 50, 40, 20
    rows = np.zeros((days * instruments, features), dtype=np.float32)
    day, instrument = np.divmod(np.arange(days * instruments, dtype=np.int32), instruments)
    tracemalloc.start()
    try:
        windows = PanelWindows.of(rows, day, instrument, window)
        _, indexing = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        windows.gather(np.arange(256))
        _, gathering = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert windows.rows is rows
    assert indexing < 24 * len(rows)
    assert indexing < 0.01 * rows.nbytes * window
    assert gathering - held < 1.2 * 256 * window * features * 4


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple))
def test_aligned_arrays_begin_where_a_cache_line_does(shape):
    """Of any shape, float32, in C order."""
    made = aligned(shape)
    assert made.shape == shape
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert made.size == 0 or made.ctypes.data % 64 == 0


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 50), samples=st.integers(0, 60), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_an_epochs_order_is_a_sample_without_replacement(rows, samples, seed, epoch):
    """Of as many rows as are asked for, or all; a function of seed and epoch."""
    given_rows = np.arange(100, 100 + rows)
    order = epoch_order(given_rows, seed, epoch, samples)
    assert len(order) == (min(rows, samples) if samples else rows)
    assert len(set(order.tolist())) == len(order)
    assert set(order.tolist()) <= set(given_rows.tolist())
    np.testing.assert_array_equal(order, epoch_order(given_rows, seed, epoch, samples))


def test_epochs_and_seeds_have_orders_of_their_own():
    """Any two differ."""
    orders = {tuple(epoch_order(np.arange(50), seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), size=st.integers(1, 70))
def test_batches_are_nearly_equal_parts(rows, size):
    """All rows, once, in order; sizes differ by one at most, none above the batch size."""
    parts = list(batches(np.arange(rows), size))
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("first", "window", "expected"), [(10, 4, 7), (2, 4, 0), (5, 1, 5), (0, 9, 0)])
def test_history_begins_a_window_before_the_first_row(first, window, expected):
    """Window - 1 trading days before, or with the calendar."""
    calendar = pd.bdate_range("2020-01-01", periods=20)
    assert history_start(calendar, calendar[first], window) == calendar[expected]


def test_history_of_a_day_beyond_the_calendar_is_that_day():
    """There is nothing to look back on that a row of it could need."""
    calendar = pd.bdate_range("2020-01-01", periods=20)
    after = calendar[-1] + pd.Timedelta(days=9)
    assert history_start(calendar, after, 5) == after
