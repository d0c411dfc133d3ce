"""What every source of bars keeps, whatever stands behind it.

A test class inherits `StoredBarsContract` and says in its fixture `build` how a source over given bars is made, and in
`absent` one over nothing; `BarSourceContract` alone is for a source that makes its bars itself.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, VOLUME, VWAP
from mlops_tasks.data.sources import BarSource, ParsedBars
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.errors import SourceError, SourceNotFoundError

Build = Callable[[pd.DataFrame], BarSource]

DAYS = ("2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11", "2024-01-12", "2024-01-16")
"""Sessions in New York and in Shanghai."""


def small_market(instruments: tuple[str, ...]) -> pd.DataFrame:
    """Raw bars of a few sessions under the standard names: the first instrument splits two for one on the fourth day
    (its factor is 1 at the end), the last one has no row on the third."""
    frames = []
    for i, name in enumerate(instruments):
        steps = np.arange(len(DAYS))
        factor = np.where((steps < 3) & (i == 0), 0.5, 1.0)
        close = np.round((20.0 + 10 * i + 0.25 * steps) / factor, 2)
        frames.append(
            pd.DataFrame(
                {
                    DATETIME: pd.to_datetime(list(DAYS)).astype("datetime64[ns]"),
                    INSTRUMENT: pd.array([name] * len(DAYS), dtype="str"),
                    OPEN: close - 0.5,
                    HIGH: close + 1.0,
                    LOW: close - 1.0,
                    CLOSE: close,
                    VOLUME: 1000.0 * (i + 1) + steps,
                    FACTOR: factor,
                }
            )
        )
    bars = pd.concat(frames, ignore_index=True)
    return bars[(bars[INSTRUMENT] != instruments[-1]) | (bars[DATETIME] != DAYS[2])].reset_index(drop=True)


class BarSourceContract:
    """Fixtures `source` and `changed` (the same source over other content) make a subclass complete."""

    @pytest.fixture
    def source(self) -> BarSource:
        """The source under test."""
        raise NotImplementedError

    @pytest.fixture
    def changed(self) -> BarSource:
        """It over content that differs in at least one value."""
        raise NotImplementedError

    def test_rows_have_the_standard_columns_and_types(self, source: BarSource) -> None:
        """`PARSED_COLUMNS` in their order, midnight datetimes, text names, float64 fields, a RangeIndex."""
        frame = source.read().frame
        assert tuple(frame.columns) == PARSED_COLUMNS
        assert isinstance(frame.index, pd.RangeIndex) and frame.index.equals(pd.RangeIndex(len(frame)))
        assert frame[DATETIME].dtype == "datetime64[ns]" and (frame[DATETIME] == frame[DATETIME].dt.normalize()).all()
        assert frame[INSTRUMENT].dtype == "str" and frame[PARSE_ERROR].dtype == "str"
        assert {str(frame[name].dtype) for name in BAR_FIELDS} == {"float64"}

    def test_two_readings_are_equal(self, source: BarSource) -> None:
        """The same rows in the same order, and the same digests."""
        first, second = source.read(), source.read()
        pd.testing.assert_frame_equal(first.frame, second.frame, check_exact=True)
        assert first.raw == second.raw and first.failed == second.failed

    def test_every_row_says_where_it_came_from(self, source: BarSource) -> None:
        """File and row name each row once, the rows of what was read add up, and a good row has no parse error."""
        parsed = source.read()
        frame = parsed.frame
        assert parsed.source == source.name and parsed.universe is None and not parsed.failed
        assert frame[SOURCE_FILE].notna().all() and (frame[SOURCE_ROW] >= 1).all() and frame[PARSE_ERROR].isna().all()
        assert not frame.duplicated([SOURCE_FILE, SOURCE_ROW]).any()
        assert sum(raw.rows for raw in parsed.raw) == len(frame)
        assert all(raw.name and len(raw.sha256) == 64 and int(raw.sha256, 16) for raw in parsed.raw)

    def test_digests_follow_the_content(self, source: BarSource, changed: BarSource) -> None:
        """Other content has other digests (equal content: see `test_two_readings_are_equal`)."""
        assert _digests(source.read()) != _digests(changed.read())


class StoredBarsContract(BarSourceContract):
    """For a source over bars that lie somewhere: fixtures `build` and `absent` make a subclass complete."""

    instruments: tuple[str, ...] = ("AAPL", "BRK.B", "MSFT")
    """In the project's spelling."""
    rtol = 0.0
    """By how much a source's raw prices and factors may differ, relatively: vendors round adjusted prices."""

    @pytest.fixture
    def build(self) -> Build:
        """A function that makes a source over bars like `small_market`'s, perhaps without a column or a row; called
        several times in one test, it makes sources of one name over different content."""
        raise NotImplementedError

    @pytest.fixture
    def absent(self) -> BarSource:
        """A source of which nothing is there."""
        raise NotImplementedError

    @pytest.fixture
    def market(self) -> pd.DataFrame:
        """The known truth."""
        return small_market(self.instruments)

    @pytest.fixture
    def source(self, build: Build, market: pd.DataFrame) -> BarSource:
        """The source over the known truth."""
        return build(market)

    @pytest.fixture
    def changed(self, build: Build, market: pd.DataFrame) -> BarSource:
        """It with one close a cent higher."""
        return build(self.with_one_change(market))

    def with_one_change(self, market: pd.DataFrame) -> pd.DataFrame:
        """One cell differs, in the smallest way."""
        return market.assign(**{CLOSE: market[CLOSE] + 0.01 * (market.index == len(market) - 1)})

    def test_it_holds_the_known_bars_with_raw_prices(self, source: BarSource, market: pd.DataFrame) -> None:
        """Every row arrives, prices as traded, adjusted = raw * factor; no field is invented."""
        found = source.read().frame.sort_values([INSTRUMENT, DATETIME], ignore_index=True)
        pd.testing.assert_frame_equal(
            found[list(market.columns)], market, check_exact=self.rtol == 0, rtol=self.rtol or 1e-5, atol=0
        )
        assert VWAP in market or found[VWAP].isna().all()

    def test_equal_content_has_equal_digests(self, build: Build, market: pd.DataFrame) -> None:
        """Two sources over the same bars read the same digests, a third over others reads another."""
        first = _digests(build(market).read())
        assert first != _digests(build(self.with_one_change(market)).read())
        assert first == _digests(build(market).read())

    def test_what_is_missing_stays_missing(self, build: Build, market: pd.DataFrame) -> None:
        """A bar with an empty cell arrives as a row with NaN there; it is validation that judges it."""
        market.loc[1, CLOSE] = np.nan
        market.loc[2, VOLUME] = np.nan
        found = build(market).read().frame.sort_values([INSTRUMENT, DATETIME], ignore_index=True)
        assert len(found) == len(market)
        assert np.flatnonzero(found[CLOSE].isna()).tolist() == [1]
        assert np.flatnonzero(found[VOLUME].isna()).tolist() == [2]

    def test_a_missing_column_is_named(self, build: Build, market: pd.DataFrame) -> None:
        """The error names the source's column, its rule and a remedy."""
        with pytest.raises(SourceError, match=r"rule required_columns: .*close.*;"):
            build(market.drop(columns=CLOSE)).read()

    def test_without_rows_there_is_an_error(self, build: Build, market: pd.DataFrame) -> None:
        """A source with no bar at all is refused: it must not look like a market that vanished."""
        with pytest.raises(SourceError, match=r"rule table_not_empty: .*;"):
            build(market.iloc[:0]).read()

    def test_what_is_not_there_is_named(self, absent: BarSource) -> None:
        """The error names what was looked for and what to correct."""
        with pytest.raises(SourceNotFoundError, match=r"rule source_exists: .*correct"):
            absent.read()


def _digests(parsed: ParsedBars) -> list[str]:
    return [raw.sha256 for raw in parsed.raw]
