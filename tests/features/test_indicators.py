"""Indicators against the library `ta`, against themselves day by day, and against the future."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.columns import PRICES
from mlops_tasks.errors import ConfigError, SourceError, StoreError
from mlops_tasks.features.indicators.definitions import CATALOGUE
from mlops_tasks.features.indicators.specs import (
    INDICATORS_FILE,
    IndicatorSpec,
    load_indicators,
    parse_indicators,
)
from mlops_tasks.features.indicators.state import IndicatorState, compute_indicators
from tests.benchmarks.panels import PANELS
from tests.features.market import awkward_bars
from tests.features.ta_indicators import PEERS, expected_columns, ta_columns

ALL = load_indicators()
AT_HAND = [
    path
    for name in ("us_sp500_5yr", "cn_csi300_qlib_2010_2026", "benchmarks_index_etf")
    if (path := PANELS / name / "panel.parquet").is_file()
]


def _one(entry: dict[str, Any]) -> tuple[IndicatorSpec, ...]:
    return parse_indicators([entry])


def _agree(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Same NaN positions; equal up to 1e-9, or to rounding of the column's largest value where values cancel."""
    for name in theirs.columns:
        mine, other = ours[name].to_numpy(), theirs[name].to_numpy(np.float64)
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(other), err_msg=name)
        largest = np.nanmax(np.abs(other), initial=0.0)
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12 * largest, err_msg=name)


def _agree_with_ta(bars: pd.DataFrame, specs: tuple[IndicatorSpec, ...]) -> None:
    ours = compute_indicators(bars, specs)
    for _, group in bars.groupby("instrument"):
        rows, own = ours.loc[group.index], group.reset_index(drop=True)
        for spec in specs:
            _agree(rows, expected_columns(own, spec))


def _same_bits(left: pd.DataFrame, right: pd.DataFrame) -> None:
    keys = ["datetime", "instrument"]
    left, right = (frame.sort_values(keys, ignore_index=True) for frame in (left, right))
    pd.testing.assert_frame_equal(left[keys], right[keys])
    values = (frame.drop(columns=keys).to_numpy().view(np.int64) for frame in (left, right))
    np.testing.assert_array_equal(*values)


def walk_bars(rows: int, seed: int, instrument: str = "A", tick: float = 0.0, odd_volume: bool = False) -> pd.DataFrame:
    """A random walk with gaps; a tick makes ties and flat stretches, odd volumes are zero or missing at times."""
    random = np.random.default_rng(seed)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, rows)))
    opened = close * np.exp(random.normal(0, 0.005, rows))
    if tick:
        close, opened = (np.maximum(np.round(x / tick), 1) * tick for x in (close, opened))
        flat = random.integers(0, rows)
        close[flat : flat + rows // 3] = opened[flat : flat + rows // 3] = close[flat]
    spread = random.exponential(0.004, (2, rows)) * (tick == 0.0)
    volume = random.lognormal(13, 1, rows).round()
    if odd_volume:
        volume[random.random(rows) < 0.2] = 0.0
        volume[random.random(rows) < 0.1] = np.nan
    days = pd.bdate_range("2020-01-01", periods=3 * rows)[np.sort(random.choice(3 * rows, rows, replace=False))]
    return pd.DataFrame(
        {
            "datetime": days,
            "instrument": instrument,
            "open": opened,
            "high": np.maximum(opened, close) * (1 + spread[0]),
            "low": np.minimum(opened, close) * (1 - spread[1]),
            "close": close,
            "volume": volume,
        }
    )


WALKS = st.builds(
    walk_bars,
    rows=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    tick=st.sampled_from([0.0, 0.0, 0.5, 5.0]),
    odd_volume=st.booleans(),
)


def _parameters(indicator: str) -> st.SearchStrategy[dict[str, Any]]:
    """Short windows, so that short series get past the warm-up; shifts as they are, windows of one where `ta` leaks."""
    least = {"trix": 2, "dpo": 3}.get(indicator, 1)
    return st.fixed_dictionaries(
        {
            name: st.integers(least, 12)
            for name, parameter in CATALOGUE[indicator].parameters.items()
            if parameter.kind is int and parameter.limits.low == 1
        }
    )


def test_every_indicator_is_compared() -> None:
    """There is a peer for each indicator of the catalogue, and the list in YAML has each of them."""
    assert set(PEERS) == set(CATALOGUE)
    assert {spec.indicator for spec in ALL} == set(CATALOGUE)


@pytest.mark.parametrize("indicator", CATALOGUE)
def test_values_are_those_of_ta(indicator: str) -> None:
    """On any series and for any windows: the same values and NaN positions, but for the documented deviations."""

    @settings(max_examples=12)
    @given(bars=WALKS, parameters=_parameters(indicator))
    def check(bars: pd.DataFrame, parameters: dict[str, Any]) -> None:
        _agree_with_ta(bars, _one({"indicator": indicator, **parameters}))

    check()


@pytest.mark.parametrize(
    "entry",
    [
        {"indicator": "keltner", "original": False, "window": 9, "window_atr": 5, "multiplier": 1.5},
        {"indicator": "ichimoku", "visual": True, "window2": 7},
        {"indicator": "donchian", "offset": 4, "window": 6},
        {"indicator": "vpt", "smoothing": 5},
        {"indicator": "bollinger", "window_dev": 2.5},
        {"indicator": "cci", "constant": 0.02},
        {"indicator": "psar", "step": 0.05, "max_step": 0.1},
        {"indicator": "ultimate_oscillator", "weight1": 1.0, "weight2": 3.5, "weight3": 0.5},
    ],
    ids=lambda entry: entry["indicator"],
)
def test_other_parameters_are_those_of_ta(entry: dict[str, Any]) -> None:
    """Parameters that are no windows mean what they mean in `ta`."""
    _agree_with_ta(awkward_bars(instruments=4, days=150), _one(entry))


def test_a_market_is_computed_one_instrument_at_a_time() -> None:
    """In a panel with gaps, listings, flat stretches and ties each instrument has the values of its own frame."""
    _agree_with_ta(awkward_bars(instruments=6), ALL)


@pytest.mark.parametrize("path", AT_HAND, ids=lambda path: path.parent.name)
def test_real_bars_have_the_values_of_ta(path: Path) -> None:
    """Three instruments of a real panel, rows that lack a price left out, agree in every column."""
    bars = pd.read_parquet(path).rename(columns={"date": "datetime"})
    bars = bars[bars["instrument"].isin(bars["instrument"].unique()[[1, 5, -1]])].dropna(subset=list(PRICES))
    bars = bars.groupby("instrument").head(900).astype(dict.fromkeys((*PRICES, "volume"), np.float64))
    _agree_with_ta(bars.reset_index(drop=True), ALL)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
@settings(max_examples=15)
def test_the_future_changes_nothing(seed: int, share: float) -> None:
    """Whatever comes after a day, missing prices and volumes included, no value up to it changes by a bit."""
    bars = pd.concat([walk_bars(80, seed, "A"), walk_bars(60, seed + 1, "B", tick=0.5, odd_volume=True)])
    bars = bars.reset_index(drop=True)
    cut = bars["datetime"].sort_values().iloc[int(share * (len(bars) - 1))]
    later = (bars["datetime"] > cut).to_numpy()
    changed, random = bars.copy(), np.random.default_rng(seed)
    for name in (*PRICES, "volume"):
        noise = np.where(random.random(len(bars)) < 0.1, np.nan, random.lognormal(0, 1, len(bars)))
        changed.loc[later, name] = (bars[name] * noise)[later]
    before, after = compute_indicators(bars, ALL), compute_indicators(changed, ALL)
    _same_bits(before[~later], after[~later])


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 330), max_size=6))
@settings(max_examples=15)
def test_day_by_day_is_all_at_once(seed: int, cuts: list[int]) -> None:
    """However the days are split, with pauses, listings and a saved state between, every bit is that of the batch."""
    bars = awkward_bars(seed=seed, instruments=6)
    bars.loc[np.random.default_rng(seed).random(len(bars)) < 0.01, ["close", "volume"]] = np.nan
    days = np.unique(bars["datetime"])
    parts, state = [], IndicatorState.empty(ALL)
    for part in np.split(days, sorted(min(cut, len(days)) for cut in cuts)):
        parts.append(state.update(bars[bars["datetime"].isin(part)]))
        state = IndicatorState.from_bytes(state.to_bytes())
    _same_bits(pd.concat(parts), compute_indicators(bars, ALL))


def test_one_day_at_a_time_is_all_at_once() -> None:
    """A hundred updates of a day each end where the batch ends."""
    bars, state = awkward_bars(days=100, instruments=5), IndicatorState.empty(ALL)
    parts = [state.update(day) for _, day in bars.groupby("datetime")]
    _same_bits(pd.concat(parts), compute_indicators(bars, ALL))
    assert state.last_days.to_dict() == bars.groupby("instrument")["datetime"].max().to_dict()


@pytest.mark.parametrize("spec", [spec for spec in ALL if spec.window], ids=lambda spec: spec.name)
def test_a_value_needs_its_window_only(spec: IndicatorSpec) -> None:
    """The last `window` bars alone give the last value, and one bar fewer does not."""
    assert spec.window is not None
    depends_on_the_oldest = spec.window == 1
    for drift in (0.95, 1.0):  # in falling prices the oldest bar of a window is its highest
        bars = walk_bars(120, seed=7)
        bars[[*PRICES]] = bars[[*PRICES]].mul(drift ** bars.index.to_numpy(), axis=0)
        whole, alone, fewer = (
            compute_indicators(bars.tail(rows), (spec,))[list(spec.columns)].iloc[-1].to_numpy()
            for rows in (len(bars), spec.window, max(spec.window - 1, 1))
        )
        np.testing.assert_array_equal(alone, whole)
        depends_on_the_oldest |= not np.array_equal(fewer, whole)
    assert depends_on_the_oldest


def test_recursive_indicators_say_so() -> None:
    """Those that remember every bar have no window; a chain of windows adds up."""
    windows = {spec.indicator: spec.window for spec in parse_indicators([{"indicator": name} for name in CATALOGUE])}
    recursive = {"ema", "macd", "rsi", "kdj", "stoch_rsi", "atr", "adx", "obv", "trix", "tsi", "kama", "ppo", "pvo"}
    recursive |= {"mass_index", "psar", "stc", "adi", "vpt", "force_index", "nvi", "cumulative_return"}
    assert {name for name, window in windows.items() if window is None} == recursive
    assert windows["sma"] == 20 and windows["stochastic"] == 16 and windows["kst"] == 53 and windows["aroon"] == 26


def test_a_missing_price_is_passed_over() -> None:
    """One bar without prices leaves one NaN in the recursions, where `ta` has no useful value ever after."""
    bars = walk_bars(80, seed=3)
    bars.loc[40, list(PRICES)] = np.nan
    bars.loc[40, "volume"] = 1.0
    for indicator, in_ta in (("atr", True), ("adx", True), ("kama", True), ("psar", False), ("nvi", True)):
        spec = _one({"indicator": indicator})[0]
        ours, theirs = compute_indicators(bars, (spec,))[indicator], ta_columns(bars, spec)[indicator]
        assert ours[60:].notna().all()
        assert theirs[60:].isna().all() == in_ta
    bars.loc[0, list(PRICES)] = np.nan
    ours = compute_indicators(bars, _one({"indicator": "cumulative_return"}))["cumulative_return"]
    np.testing.assert_allclose(ours, (bars["close"] / bars["close"][1] - 1) * 100)


def test_nothing_is_known_before_the_first_mean() -> None:
    """ATR and ADX begin with NaN, where `ta` has zeros, and short series have NaN, where `ta` fails."""
    bars = walk_bars(60, seed=4)
    for indicator, first in (("atr", 13), ("adx", 27), ("adx_plus", 14), ("adx_minus", 14)):
        spec = _one({"indicator": indicator.split("_")[0]})[0]
        assert compute_indicators(bars, (spec,))[indicator].first_valid_index() == first
        assert (ta_columns(bars, spec)[indicator][:first] == 0).all()
        assert compute_indicators(bars[:5], (spec,))[indicator].isna().all()


def test_the_beginning_is_not_filled_from_the_end() -> None:
    """Where `ta` takes the mean of the whole series for what was before the first bar, there is NaN."""
    bars = walk_bars(90, seed=5)
    higher = bars.assign(close=bars["close"].where(bars.index < 80, 99.0), high=bars["high"].where(bars.index < 80, 99))
    for entry, known_from in (
        ({"indicator": "kst"}, 44),
        ({"indicator": "trix", "window": 1}, 1),
        ({"indicator": "dpo", "window": 1}, 1),
        ({"indicator": "ichimoku", "visual": True, "name": "ichimoku_b"}, 26),
    ):
        spec = _one(entry)[0]
        column = spec.columns[-1] if spec.indicator == "ichimoku" else spec.columns[0]
        leaks = ta_columns(bars, spec)[column][:44].dropna() != ta_columns(higher, spec)[column][:44].dropna()
        assert leaks.any()
        assert compute_indicators(bars, (spec,))[column].first_valid_index() == known_from


def test_a_missing_last_close_does_not_delay_kama() -> None:
    """The tenth close starts KAMA whatever the last one is; in `ta` a missing last one starts it a bar later."""
    bars = walk_bars(40, seed=6)
    bars.loc[39, "close"] = np.nan
    spec = _one({"indicator": "kama"})[0]
    assert compute_indicators(bars, (spec,))["kama"].first_valid_index() == 9
    assert ta_columns(bars, spec)["kama"].first_valid_index() == 10


def test_every_value_is_finite_or_nan() -> None:
    """No volume, no range, prices of zero or beyond reason: NaN where `ta` has infinities; no later value suffers."""
    bars = walk_bars(80, seed=8)
    bars.loc[30:33, "volume"] = 0.0
    bars.loc[35, [*PRICES]] = [0.0, 0.0, 0.0, 0.0]
    bars.loc[37, ["high", "low"]] = bars.loc[37, "open"]
    bars.loc[38, "close"] = np.inf
    bars.loc[40, [*PRICES]] = 1e307
    values = compute_indicators(bars, ALL).drop(columns=["datetime", "instrument"])
    assert not np.isinf(values.to_numpy()).any()
    assert values.iloc[-1].notna().sum() > 0.9 * values.shape[1]


def test_a_bar_without_range_adds_no_flow() -> None:
    """A close outside a bar without a range counts nothing, where `ta` has an infinite index ever after."""
    bars = walk_bars(40, seed=9)
    bars.loc[30, ["high", "low"]] = bars.loc[30, "close"] + 1.0
    without = bars.assign(volume=bars["volume"].where(bars.index != 30, 0.0))
    spec = _one({"indicator": "adi"})
    ours, theirs = compute_indicators(bars, spec)["adi"], ta_columns(bars, spec[0])["adi"]
    np.testing.assert_array_equal(ours, compute_indicators(without, spec)["adi"])
    assert np.isinf(theirs[30:]).all()
    assert compute_indicators(bars, _one({"indicator": "cmf"}))["cmf"][31:].notna().all()


def test_a_flat_window_has_no_spread() -> None:
    """Prices that do not move have bands of no width and no place between them; pandas' running deviation is not 0."""
    bars = walk_bars(80, seed=12)
    bars.loc[40:, [*PRICES]] = 19.1
    specs = parse_indicators([{"indicator": "bollinger"}, {"indicator": "cci"}])
    ours, theirs = compute_indicators(bars, specs), ta_columns(bars, specs[0])
    assert (ours["bollinger_width"][60:] == 0).all() and ours["bollinger_percent"][60:].isna().all()
    assert ours["cci"][60:].isna().all()
    assert (theirs["bollinger_width"][59:] != 0).any()


def test_kdj_of_a_known_series() -> None:
    """K and D move a third of the way to what they follow, from its first value; J = 3 K - 2 D."""
    close = np.array([5.0, 6, 7, 6, 8, 7, 9, 8, 8.5])
    bars = pd.DataFrame({"datetime": pd.bdate_range("2020-01-01", periods=9), "instrument": "A", "close": close})
    bars = bars.assign(open=close, high=close + 0.5, low=close - 0.5, volume=1.0)
    ours = compute_indicators(bars, _one({"indicator": "kdj", "window": 3}))
    k = d = np.nan
    for row in range(2, 9):
        low, high = close[row - 2 : row + 1].min() - 0.5, close[row - 2 : row + 1].max() + 0.5
        raw = 100 * (close[row] - low) / (high - low)
        k = raw if row == 2 else k * 2 / 3 + raw / 3
        d = k if row == 2 else d * 2 / 3 + k / 3
        np.testing.assert_allclose(ours.loc[row, ["kdj_k", "kdj_d", "kdj_j"]].tolist(), [k, d, 3 * k - 2 * d])
    assert ours["kdj_k"][:2].isna().all()


def test_order_index_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come back where they were, with their index; blocks and threads change no bit."""
    bars = awkward_bars(days=90)
    mixed = bars.sample(frac=1.0, random_state=0)
    whole, ours = compute_indicators(bars, ALL, threads=1), compute_indicators(mixed, ALL, threads=2)
    assert ours.index.equals(mixed.index)
    pd.testing.assert_frame_equal(ours[["datetime", "instrument"]], mixed[["datetime", "instrument"]])
    _same_bits(ours, whole)
    monkeypatch.setattr("mlops_tasks.features.indicators.state._BLOCK_BARS", 100)
    _same_bits(compute_indicators(bars, ALL, threads=2), whole)


def test_float32_is_the_rounded_result() -> None:
    """The numbers are computed in float64 whatever they are given in."""
    bars = awkward_bars(days=90, instruments=3)
    wide = compute_indicators(bars, ALL).drop(columns=["datetime", "instrument"])
    narrow = compute_indicators(bars, ALL, np.float32).drop(columns=["datetime", "instrument"])
    assert (narrow.dtypes == np.float32).all()
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_no_bars_have_no_rows() -> None:
    """An empty frame gives an empty frame with all columns."""
    bars = awkward_bars(days=90, instruments=1)[:0]
    assert compute_indicators(bars, ALL).shape == (0, 2 + sum(len(spec.columns) for spec in ALL))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("rsi", "expected a list of entries"),
        ([], "expected a list of entries"),
        (["rsi"], r"list\[0\]: expected a mapping"),
        ([{"indicator": "rsj"}], r"list\[0\]\.indicator: unknown indicator 'rsj'; known: sma, ema"),
        ([{"window": 3}], r"list\[0\]\.indicator: unknown indicator None"),
        (
            [{"indicator": "rsi", "windw": 3}],
            r"list\[0\]\.windw: unknown parameter; rsi takes window: correct or remove",
        ),
        ([{"indicator": "obv", "window": 3}], r"list\[0\]\.window: unknown parameter; obv takes none"),
        ([{"indicator": "rsi", "window": 0}], r"list\[0\]\.window: 0 is not between 1 and 1000"),
        ([{"indicator": "rsi", "window": 2.5}], r"list\[0\]\.window: expected int, got 2\.5; the default is 14"),
        ([{"indicator": "rsi", "window": True}], r"list\[0\]\.window: expected int, got True"),
        ([{"indicator": "donchian", "offset": -1}], r"list\[0\]\.offset: -1 is not between 0 and 1000"),
        ([{"indicator": "cci", "constant": float("nan")}], r"list\[0\]\.constant: nan is not between"),
        ([{"indicator": "rsi", "name": "R 14"}], r"list\[0\]\.name: 'R 14' is not a column name"),
        ([{"indicator": "rsi"}, {"indicator": "rsi"}], r"list\[1\]\.name: column 'rsi' is already given by list\[0\]"),
        (
            [{"indicator": "stochastic", "name": "S"}, {"indicator": "rsi", "name": "S_k"}],
            r"list\[1\]\.name: column 'S_k' is already given by list\[0\]; give one of the two another name",
        ),
    ],
)
def test_a_wrong_list_is_refused(entries: Any, message: str) -> None:
    """The error names the entry, the key and the remedy."""
    with pytest.raises(ConfigError, match=message):
        parse_indicators(entries, "list")


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    """A missing file, broken YAML and a wrong entry are errors that name the file."""
    for name, text in (("missing.yaml", None), ("broken.yaml", "- {indicator"), ("odd.yaml", "- {indicator: x}")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=name):
            load_indicators(tmp_path / name)
    assert INDICATORS_FILE.is_file()


def test_a_spec_is_what_its_entry_says() -> None:
    """Written as an entry and read again, a spec is the same, defaults included."""
    assert parse_indicators([spec.as_entry() for spec in ALL]) == ALL
    chosen = [spec.only(spec.columns[::2]) for spec in ALL]
    assert list(parse_indicators([spec.as_entry() for spec in chosen])) == chosen
    assert _one({"indicator": "rsi"})[0].parameters == {"window": 14}
    assert CATALOGUE["mfi"].inputs == ("high", "low", "close", "volume")
    assert CATALOGUE["macd"].outputs == ("", "signal", "histogram")
    assert all(definition.build.__doc__ for definition in CATALOGUE.values())


def test_wrong_bars_are_refused() -> None:
    """A missing column, key or instrument, and a repeated key, are errors that say which."""
    bars, rsi = walk_bars(10, seed=1), _one({"indicator": "rsi"})
    compute_indicators(bars.drop(columns=["open", "high", "low", "volume"]), rsi)
    for wrong, message in (
        (bars.drop(columns="close"), "no column close"),
        (bars.assign(datetime=bars["datetime"].where(bars.index != 2)), "1 rows have no datetime"),
        (bars.assign(instrument=bars["instrument"].where(bars.index != 2)), "1 rows have no instrument"),
        (pd.concat([bars, bars.tail(1)]), "1 rows repeat a datetime and instrument .the first: A 20"),
    ):
        with pytest.raises(SourceError, match=message):
            compute_indicators(wrong, rsi)


def test_old_bars_are_refused_and_change_nothing() -> None:
    """A state takes bars after an instrument's last one only; a refused update leaves it as it was."""
    bars = awkward_bars(days=90, instruments=4)
    days = np.unique(bars["datetime"])
    state = IndicatorState.empty(ALL)
    state.update(bars[bars["datetime"] <= days[30]])
    before = state.to_bytes()
    with pytest.raises(SourceError, match=r"instruments have bars that are not after their last one \(I00 has"):
        state.update(bars[bars["datetime"] >= days[30]])
    assert state.to_bytes() == before


def test_a_foreign_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, a truncated state, another version's and one with the wrong places are errors with a remedy."""
    state = IndicatorState.empty(ALL)
    state.update(walk_bars(30, seed=2))
    content = state.to_bytes()
    with np.load(io.BytesIO(content)) as archive:
        parts = {name: archive[name] for name in archive.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{**parts, "values": parts["values"][:, 1:]})
    for wrong, message in (
        (b"noise", "cannot be read"),
        (content[:-100], "cannot be read"),
        (buffer.getvalue(), "has shape"),
    ):
        with pytest.raises(StoreError, match=f"{message}.*compute the indicators again"):
            IndicatorState.from_bytes(wrong)
    monkeypatch.setattr("mlops_tasks.features.indicators.state.STATE_VERSION", 2)
    with pytest.raises(StoreError, match="has version 1, this code has 2"):
        IndicatorState.from_bytes(content)
