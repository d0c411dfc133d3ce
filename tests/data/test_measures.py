"""What is measured for the rules, against pandas and against planted truth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.measures import Measures, measure
from mlops_tasks.data.validation.row_kinds import number_instruments
from tests.data.market import make_bars, parsed_frame

PARAMETERS = load_suites().measures
INSTRUMENTS, DAYS = 12, 120
ROW_MEASURES = ["on_session", "copies", "jump", "factor_ratio", "factor_gap", "repeats", "spike", "sessions_missing"]


def panel(seed: int = 0) -> pd.DataFrame:
    """Twelve good instruments of 120 XNYS sessions, sorted by instrument and day."""
    return parsed_frame(make_bars(days=DAYS, instruments=INSTRUMENTS, seed=seed))


def measured(frame: pd.DataFrame, calendar: str = "auto") -> Measures:
    return measure(frame, calendar, PARAMETERS)


def scaled(frame: pd.DataFrame, begin: int, end: int, ratio: float) -> pd.DataFrame:
    """Prices of the rows begin..end-1 times a ratio."""
    changed = frame.copy()
    rows = changed.index[begin:end]
    changed.loc[rows, list(PRICES)] *= ratio
    return changed


@given(order=st.permutations(range(60)), seed=st.integers(0, 5))
def test_measures_do_not_depend_on_the_order_of_rows(order: list[int], seed: int) -> None:
    """Shuffled rows have the same measures, each at its own row; so have instruments and sessions."""
    frame = parsed_frame(make_bars(days=15, instruments=4, seed=seed))
    frame = scaled(frame, 20, 30, 0.5)
    shuffled = frame.iloc[order].reset_index(drop=True)
    whole, other = measured(frame), measured(shuffled)
    pd.testing.assert_frame_equal(whole.rows[ROW_MEASURES].iloc[order].reset_index(drop=True), other.rows[ROW_MEASURES])
    pd.testing.assert_frame_equal(
        whole.instruments.sort_values(INSTRUMENT, ignore_index=True),
        other.instruments.sort_values(INSTRUMENT, ignore_index=True),
    )
    pd.testing.assert_frame_equal(whole.sessions, other.sessions)


def test_jumps_are_those_of_pandas() -> None:
    """`jump` is |log of the adjusted close's ratio| to the bar before; `factor_ratio` that of the factor."""
    frame = panel()
    frame[FACTOR] = np.where(np.arange(len(frame)) % DAYS < 50, 1.0, 2.0)
    rows = measured(frame).rows
    adjusted = frame[CLOSE] * frame[FACTOR]
    before = adjusted.groupby(frame[INSTRUMENT]).shift()
    np.testing.assert_allclose(rows["jump"], np.abs(np.log(adjusted / before)), rtol=1e-5, atol=1e-7)
    ratio = frame[FACTOR] / frame.groupby(INSTRUMENT)[FACTOR].shift()
    np.testing.assert_allclose(rows["factor_ratio"], ratio)


def test_a_bar_is_compared_with_the_last_usable_one() -> None:
    """Rows without a key, a positive close or a factor are passed over: their neighbours are compared."""
    frame = panel()
    frame.loc[10, CLOSE] = np.nan
    frame.loc[11, CLOSE] = -1.0
    frame.loc[12, FACTOR] = np.nan
    frame.loc[13, DATETIME] = pd.NaT
    frame.loc[14, INSTRUMENT] = None
    rows = measured(frame).rows
    assert rows["jump"].iloc[10:15].isna().all()
    assert rows["jump"].iloc[15] == pytest.approx(abs(np.log(frame[CLOSE][15] / frame[CLOSE][9])), rel=1e-5)
    assert rows["sessions_missing"].iloc[15] == 5
    assert (rows["on_session"] == 1).all(), "without a key there is nothing to hold against a calendar"


@pytest.mark.parametrize("calendar", ["auto", "XNYS"])
def test_days_off_the_calendar_are_found(calendar: str) -> None:
    """A row on a holiday or a weekend has `on_session` 0; a session without a row counts as missing."""
    frame = panel()
    frame.loc[10, DATETIME] = pd.Timestamp("2019-12-25")
    dropped = frame.drop(index=[30, 31]).reset_index(drop=True)
    result = measured(dropped, calendar)
    assert np.flatnonzero(result.rows["on_session"] == 0).tolist() == [10]
    assert result.calendar_counts() == {"XNYS": INSTRUMENTS}
    missing = result.rows["sessions_missing"]
    gaps = frame[DATETIME][32], dropped[DATETIME][30]
    assert gaps[0] == gaps[1] and missing[30] == 2
    assert result.instruments["longest_gap"].tolist() == [2] + [0] * (INSTRUMENTS - 1)


def test_each_instrument_has_the_calendar_that_it_follows() -> None:
    """Shares of New York, Shanghai and a coin in one frame: nothing is off a session."""
    names = {"XNYS": "AAPL", "XSHG": "SH600000", "24/7": "BTC"}
    parts = []
    for calendar, name in names.items():
        days = pd.DatetimeIndex(sessions(calendar, "2020-01-01", "2020-12-31"))
        bars = make_bars(days=200, instruments=1)
        parts.append(bars.assign(Date=days[:200].strftime("%Y-%m-%d"), Symbol=name))
    result = measured(parsed_frame(pd.concat(parts, ignore_index=True)))
    assert dict(zip(result.instruments[INSTRUMENT], result.instruments["calendar"], strict=True)) == {
        name: calendar for calendar, name in names.items()
    }
    assert (result.rows["on_session"] == 1).all() and (result.rows["sessions_missing"] == 0).all()


@given(
    values=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([1.0, 2.0, np.nan]), st.sampled_from([0.0, 5.0, 7.0, np.nan])),
        min_size=1,
        max_size=60,
    )
)
def test_copies_are_those_of_pandas(values: list[tuple[int, float, float]]) -> None:
    """`copies` counts the rows of a day with one close and one positive volume, as a group-by does."""
    frame = parsed_frame(make_bars(days=len(values), instruments=1))
    frame[DATETIME] = pd.Timestamp("2020-01-02") + pd.to_timedelta([day for day, _, _ in values], "D")
    frame[CLOSE], frame[VOLUME] = [close for _, close, _ in values], [volume for _, _, volume in values]
    traded = frame[(frame[VOLUME] > 0) & frame[CLOSE].notna()]
    counts = traded.groupby([DATETIME, CLOSE, VOLUME])[CLOSE].transform("size")
    expected = counts.reindex(frame.index, fill_value=1).astype("int32")
    np.testing.assert_array_equal(measured(frame).rows["copies"], expected)


def test_repeats_count_bars_that_stand_still() -> None:
    """A bar repeated three times counts 1, 2, 3; with volume 0 it is a suspension and counts nothing."""
    frame = panel()
    fields = [*PRICES, VOLUME]
    frame.loc[21:23, fields] = frame.loc[20, fields].to_numpy()
    frame.loc[41:43, fields] = frame.loc[40, fields].to_numpy()
    frame.loc[40:43, VOLUME] = 0.0
    rows = measured(frame).rows
    assert rows["repeats"].iloc[20:25].tolist() == [0, 1, 2, 3, 0]
    assert rows["repeats"].iloc[40:45].tolist() == [0] * 5
    frame.loc[60:63, list(PRICES)], frame.loc[60:63, VOLUME] = 7.0, 100.0
    assert measured(frame).rows["flat_repeats"].iloc[60:65].tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("ratio", [0.5, 2.0, 1 / 3, 1.5, 0.1])
def test_an_unadjusted_split_is_told_from_a_crash(ratio: float) -> None:
    """A level that changes for good overnight by p/q at the usual turnover is a split; with a factor that undoes it, at
    fifteen times the turnover and in nervous days, within the day, or for two days only it is none."""
    frame = panel()
    plain = scaled(frame, 50, DAYS, ratio)
    plain.loc[50 : DAYS - 1, VOLUME] /= ratio
    found = measured(plain).instruments.iloc[0]
    assert (found["splits"], found["split_ratio"]) == (1, pytest.approx(ratio))
    assert found["split_on"] == frame[DATETIME][50]
    adjusted = plain.copy()
    adjusted.loc[50 : DAYS - 1, FACTOR] = 1 / ratio
    crash = plain.copy()
    crash.loc[50:54, VOLUME] = crash.loc[20:49, VOLUME].median() * 15
    crash.loc[50, ["open", "low", "high"]] *= [1.15, 0.8, 1.25]
    crash.loc[51 : DAYS - 1, list(PRICES)] *= np.exp(0.08 * (-1.0) ** np.arange(DAYS - 51))[:, None]
    within = plain.copy()
    within.loc[50, ["open", "high"]] = plain.loc[50, ["open", "high"]] / ratio
    within.loc[50, "open"] = frame.loc[50, "open"]
    passing = scaled(frame, 50, 52, ratio)
    for other in (frame, adjusted, crash, within, passing):
        assert measured(other).instruments["splits"].sum() == 0


@pytest.mark.parametrize("ratio", [100.0, 0.01, 1000.0])
def test_a_change_of_the_price_unit_is_found(ratio: float) -> None:
    """Cents from a day on are found with the ratio and the day, whatever the turnover."""
    found = measured(scaled(panel(), 50, DAYS, ratio)).instruments.iloc[0]
    assert (found["price_units"], found["price_unit_ratio"]) == (1, pytest.approx(ratio))


@pytest.mark.parametrize("ratio", [100.0, 0.01, 1000.0])
def test_a_change_of_the_volume_unit_is_found(ratio: float) -> None:
    """Lots in place of shares from a day on are found; one day of heavy trading is none."""
    frame = panel()
    changed = frame.copy()
    changed.loc[60 : DAYS - 1, VOLUME] *= ratio
    found = measured(changed).instruments.iloc[0]
    assert (found["volume_units"], found["volume_unit_ratio"]) == (1, pytest.approx(ratio))
    assert found["volume_unit_on"] == frame[DATETIME][60]
    frame.loc[60, VOLUME] *= ratio
    assert measured(frame).instruments["volume_units"].sum() == 0


def test_a_factor_that_the_price_does_not_follow_is_measured() -> None:
    """A factor that doubles alone leaves a gap of log 2; with a price that halves it leaves none."""
    frame = panel()
    frame.loc[50 : DAYS - 1, FACTOR] = 2.0
    overnight = abs(np.log(2 * frame["open"][50] / frame[CLOSE][49]))
    alone = measured(frame)
    assert alone.rows["factor_gap"][50] == pytest.approx(overnight, rel=1e-5)
    assert (alone.rows["factor_gap"].fillna(0) > 0).sum() == 1
    assert alone.instruments["factor_error_on"][0] == frame[DATETIME][50]
    assert measured(scaled(frame, 50, DAYS, 0.5)).rows["factor_gap"].max() < 0.05


def test_a_bar_of_another_instrument_is_a_spike() -> None:
    """One bar at 1.3 times its neighbours' level is measured; two in a row, or a move that stays, are not."""
    frame = panel()
    spike = measured(scaled(frame, 50, 51, 1.3)).rows["spike"]
    assert spike[50] > 0.2 and (spike.drop(index=50) == 0).all()
    for end in (52, DAYS):
        assert (measured(scaled(frame, 50, end, 1.3)).rows["spike"] == 0).all()


def test_sessions_are_judged_across_instruments() -> None:
    """Shares and medians of a session are those that pandas finds on the pivoted panel."""
    frame = panel()
    frame = scaled(frame, 50, 51, 2.0)
    frame = frame.drop(index=[DAYS + 70, 2 * DAYS + 70]).reset_index(drop=True)
    table = measured(frame).sessions.set_index(DATETIME)
    closes = frame.pivot(index=DATETIME, columns=INSTRUMENT, values=CLOSE)
    moves = closes.ffill() / closes.ffill().shift()
    moves = moves.where(closes.notna())
    days = closes.index
    assert (table.index == days).all()
    np.testing.assert_allclose(table["price_ratio"].iloc[1:], moves.median(axis=1).iloc[1:], rtol=1e-6)
    shared = (np.abs(np.log(moves)) > PARAMETERS["jump"]).sum(axis=1) / moves.notna().sum(axis=1)
    np.testing.assert_allclose(table["jumping_share"].iloc[1:], shared.iloc[1:])
    assert (table["newest"].to_numpy() == (days == days[-1])).all() and table["newest_missing_share"].iloc[-1] == 0
    missing = table["missing_share"].fillna(table["newest_missing_share"])
    assert missing.to_dict() == {day: pytest.approx(2 / 12 if day == days[70] else 0.0) for day in days}


@pytest.mark.parametrize("instruments", [11, 12])
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 20.0])
def test_medians_of_sessions_are_those_of_numpy(spread: float, instruments: int) -> None:
    """However near or far from one another the moves of a session's instruments are."""
    frame = parsed_frame(make_bars(days=DAYS, instruments=instruments))
    frame[list(PRICES)] = np.exp(np.random.default_rng(0).normal(0, spread, (len(frame), 1))).repeat(4, axis=1)
    frame[VOLUME] = frame[CLOSE] * 1000
    table = measured(frame).sessions
    for name, field in (("price_ratio", CLOSE), ("volume_ratio", VOLUME)):
        values = frame[field].to_numpy().reshape(instruments, DAYS)
        medians = np.median((values[:, 1:] / values[:, :-1]).astype(np.float32), axis=0)
        np.testing.assert_allclose(table[name].iloc[1:], medians, rtol=1e-6)


@given(runs=st.lists(st.tuples(st.sampled_from(["A", "BB", "B", None]), st.integers(1, 30)), min_size=1, max_size=20))
def test_instruments_are_numbered_as_they_appear(runs: list[tuple[str | None, int]]) -> None:
    """As pandas numbers them, one name after the other or each for itself, in one piece or in several."""
    names = pd.Series([name for name, count in runs for _ in range(count)], dtype="str")
    codes, found = pd.factorize(names)
    for given_names in (names, pd.concat([names.iloc[: len(names) // 3], names.iloc[len(names) // 3 :]])):
        numbers, spelled = number_instruments(given_names)
        assert numbers.tolist() == codes.tolist() and spelled == found.tolist()


def test_the_newest_session_is_held_against_the_one_before() -> None:
    """Instruments that have a bar the session before and none on the newest are missing there."""
    frame = panel()
    last = frame[DATETIME].max()
    part = frame[(frame[DATETIME] < last) | frame[INSTRUMENT].isin(["S00", "S01", "S02"])].reset_index(drop=True)
    table = measured(part).sessions
    assert table["newest_missing_share"].iloc[-1] == pytest.approx(9 / 12)
    assert (table["missing_share"].iloc[:-1] == 0).all() and np.isnan(table["missing_share"].iloc[-1])


def test_few_instruments_are_not_judged_together() -> None:
    """Below `min_instruments` shares and medians are NaN, not verdicts."""
    table = measured(parsed_frame(make_bars(days=30, instruments=PARAMETERS["min_instruments"] - 1))).sessions
    shared = ["missing_share", "jumping_share", "repeated_share", "price_ratio", "volume_ratio"]
    assert table[shared].isna().all(axis=None)
    assert (table["bars"] == PARAMETERS["min_instruments"] - 1).all()


def test_a_frame_without_any_key_is_measured() -> None:
    """Rows without date or instrument have harmless measures; there are no sessions."""
    frame = parsed_frame(make_bars(days=5, instruments=2))
    frame[DATETIME] = pd.Series([pd.NaT] * len(frame), dtype="datetime64[ns]")
    result = measured(frame)
    assert result.sessions.empty and (result.rows["copies"] == 1).all()
    frame[INSTRUMENT] = pd.Series([None] * len(frame), dtype="str")
    assert measured(frame).instruments.empty
