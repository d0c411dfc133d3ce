"""Yahoo, akshare and baostock: their meaning of each field, their errors, and what is never asked for twice."""

import signal
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRICES, VOLUME, VWAP
from mlops_tasks.config import CalendarSettings, DataSettings, DownloadSettings, Settings, VendorSource
from mlops_tasks.data.exchanges.calendars import check_calendar
from mlops_tasks.data.sources import BarSource, ParsedBars, read_source
from mlops_tasks.data.sources.akshare import AkshareSource
from mlops_tasks.data.sources.baostock import BaostockSource
from mlops_tasks.data.sources.download import UnavailableError
from mlops_tasks.data.sources.vendor import VendorBars, a_share, factor_on
from mlops_tasks.data.sources.yahoo import CALENDARS, YahooSource, yahoo_symbol
from mlops_tasks.errors import SourceError, SourceNotFoundError
from tests import programs
from tests.data.sources.contract import BarSourceContract, small_market
from tests.data.sources.vendors import Bar, Fault, Listing, Vendor
from tests.programs import Program

SOURCES: dict[str, type[VendorBars]] = {"yahoo": YahooSource, "akshare": AkshareSource, "baostock": BaostockSource}
KINDS = list(SOURCES)

LATER = datetime(2024, 2, 1, tzinfo=UTC)
"""After all bars here."""
QUICK = DownloadSettings(
    concurrency=3, requests_per_s=1000, attempts=4, backoff_s=0.01, timeout_s=0.6, max_failed_share=0.5
)

SHARES = tuple(f"SH6000{i:02d}" for i in range(12))


def spelled(kind: str, instrument: str) -> str:
    """The vendor's name of an A-share; the local vendor's answers are kept under it."""
    exchange, code = a_share(instrument)
    market = {"yahoo": {"SH": f"{code}.SS", "SZ": f"{code}.SZ"}, "akshare": {"SH": f"1.{code}", "SZ": f"0.{code}"}}
    return market.get(kind, {}).get(exchange, f"{exchange.lower()}.{code}")


def list_share(vendor: Vendor, kind: str, instrument: str, listing: Listing) -> None:
    """Make the vendor know an A-share."""
    vendor.listings[spelled(kind, instrument)] = listing
    if kind == "akshare":
        vendor.listings[instrument.lower()] = listing


def asked_for(vendor: Vendor, kind: str) -> set[str]:
    """The shares whose bars the vendor was asked for."""
    return {name for name in SHARES if spelled(kind, name) in vendor.asked}


def flat(days: tuple[str, ...] = ("2024-01-08", "2024-01-09", "2024-01-10"), close: float = 10.0) -> Listing:
    """A share that hardly moves."""
    return Listing(tuple(Bar(day, close, close + 0.5, close - 0.5, close, 1000) for day in days), zone="Asia/Shanghai")


def make(home: Path, kind: str, instruments: tuple[str, ...] | str, **changes: Any) -> VendorBars:
    """A source of that kind, as the settings would make it; `changes`: limits, at, schedule, start."""
    options = {"limits": QUICK, "at": LATER, "schedule": "XSHG", "start": date(2013, 1, 1)} | changes
    spec = VendorSource(
        kind=kind,  # type: ignore[arg-type]
        instruments=instruments,
        start=options["start"],
        download=options["limits"],
    )
    data, calendar = DataSettings(sources={"shop": spec}), CalendarSettings(schedule=options["schedule"])
    return SOURCES[kind](Settings(home=home, data=data, calendar=calendar), "shop", spec, at=options["at"])


def bars_of(parsed: ParsedBars, instrument: str) -> pd.DataFrame:
    """The rows of one instrument."""
    return parsed.frame[parsed.frame[INSTRUMENT] == instrument].reset_index(drop=True)


class VendorContract(BarSourceContract):
    """What the three keep beside the common contract."""

    kind: str
    instruments = ("SH600000", "SH600519", "SZ000001")

    @pytest.fixture
    def market(self) -> pd.DataFrame:
        """The known truth, in whole lots; factors are 1 on the first day, as a cumulative factor is."""
        bars = small_market(self.instruments)
        first = bars.groupby(INSTRUMENT)[FACTOR].transform("first")
        return bars.assign(**{VOLUME: bars[VOLUME] * 100, FACTOR: bars[FACTOR] / first})

    @pytest.fixture
    def build(self, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Callable[[pd.DataFrame], BarSource]:
        """Makes the vendor sell those bars, and a source that was never asked before."""

        def build(market: pd.DataFrame) -> BarSource:
            for name, bars in market.groupby(INSTRUMENT):
                list_share(vendor, self.kind, str(name), self.listing(bars))
            return make(tmp_path_factory.mktemp("home"), self.kind, tuple(market[INSTRUMENT].unique()))

        return build

    def listing(self, bars: pd.DataFrame) -> Listing:
        """The truth as the vendor knows it."""
        rows = tuple(
            Bar(f"{r.datetime:%Y-%m-%d}", r.open, r.high, r.low, r.close, int(r.volume)) for r in bars.itertuples()
        )
        steps = bars[bars[FACTOR].diff() != 0]
        factors = {f"{r.datetime:%Y-%m-%d}": r.factor for r in steps.itertuples()}
        return Listing(rows, factors=factors, zone="Asia/Shanghai")

    @pytest.fixture
    def source(self, build: Callable[[pd.DataFrame], BarSource], market: pd.DataFrame) -> BarSource:
        return build(market)

    @pytest.fixture
    def changed(self, market: pd.DataFrame, build: Callable[[pd.DataFrame], BarSource]) -> "Changed":
        return Changed(
            lambda: build(market.assign(**{CLOSE: market[CLOSE] + 0.01 * (market.index == len(market) - 1)}))
        )

    def test_it_holds_the_known_bars_with_raw_prices(self, source: BarSource, market: pd.DataFrame) -> None:
        """Every row arrives to the last bit, prices as traded, adjusted = raw * factor; none is invented."""
        found = source.read().frame.sort_values([INSTRUMENT, DATETIME], ignore_index=True)
        pd.testing.assert_frame_equal(found[list(market.columns)], market, check_exact=True)
        assert found[VWAP].isna().all()


class Changed:
    """A source whose content changes when it is read: the vendor's answers are the same object's."""

    name = "shop"

    def __init__(self, change: Callable[[], BarSource]) -> None:
        self.change = change

    def read(self) -> ParsedBars:
        return self.change().read()


class TestYahooContract(VendorContract):
    kind = "yahoo"

    @pytest.fixture
    def market(self) -> pd.DataFrame:
        """Yahoo's factors are 1 on the last day."""
        bars = small_market(self.instruments)
        return bars.assign(**{VOLUME: bars[VOLUME] * 100})

    def listing(self, bars: pd.DataFrame) -> Listing:
        rows = super().listing(bars).bars
        steps = bars[bars[FACTOR].pct_change() > 0]
        return Listing(
            rows, splits={f"{r.datetime:%Y-%m-%d}": (2, 1) for r in steps.itertuples()}, zone="Asia/Shanghai"
        )


class TestAkshareContract(VendorContract):
    kind = "akshare"


class TestBaostockContract(VendorContract):
    kind = "baostock"


APPLE = (
    Bar("2020-08-27", 508.57, 509.94, 495.33, 500.04, 38_888_100),
    Bar("2020-08-28", 504.05, 505.77, 498.31, 499.23, 46_907_500),
    Bar("2020-08-31", 127.58, 131.00, 126.00, 129.04, 225_702_700),
    Bar("2020-09-01", 132.76, 134.80, 130.53, 134.18, 152_470_100),
)


def test_splits_and_dividends_of_yahoo(vendor: Vendor, tmp_path: Path) -> None:
    """Apple's 4 for 1 split of 2020-08-31 and a dividend of 0.50 next day: prices and volume as traded, and a factor of
    (1 - 0.50 / 129.04) before the dividend, a quarter of that before the split, 1 at the end."""
    paid = 1 - 0.50 / 129.04
    adjusted = (500.04 / 4 * paid, 499.23 / 4 * paid, 129.04 * paid, 134.18)
    vendor.listings["AAPL"] = Listing(
        APPLE, splits={"2020-08-31": (4, 1)}, dividends={"2020-09-01": 0.5}, adjusted=adjusted
    )
    found = make(tmp_path, "yahoo", ("AAPL",), schedule="XNYS").read().frame
    assert found[DATETIME].dt.strftime("%Y-%m-%d").tolist() == [bar.day for bar in APPLE]
    for name in (OPEN, HIGH, LOW, CLOSE, VOLUME):
        assert found[name].tolist() == [getattr(bar, name) for bar in APPLE]
    np.testing.assert_allclose(found[FACTOR], [paid / 4, paid / 4, paid, 1], rtol=1e-6)
    np.testing.assert_allclose(found[CLOSE] * found[FACTOR], adjusted, rtol=1e-6)


def test_splits_that_are_no_powers_of_two_leave_no_trace(vendor: Vendor, tmp_path: Path) -> None:
    """After a 7 for 1 and a 1 for 10 split, the prices of the day come back to the cent."""
    days = pd.bdate_range("2023-03-01", periods=60).strftime("%Y-%m-%d")
    closes = np.round(np.random.default_rng(5).uniform(20, 900, len(days)), 2)
    bars = tuple(Bar(d, c, c + 0.37, c - 0.41, c, 7_000_000) for d, c in zip(days, closes, strict=True))
    vendor.listings["X"] = Listing(bars, splits={days[20]: (7, 1), days[40]: (1, 10)})
    found = make(tmp_path, "yahoo", ("X",), schedule="XNYS").read().frame
    assert found[CLOSE].tolist() == closes.tolist()
    assert found[HIGH].tolist() == [round(c + 0.37, 2) for c in closes]
    assert (found[VOLUME] == 7_000_000).all()
    np.testing.assert_allclose(found[FACTOR], np.repeat([10 / 7, 10, 1], 20), rtol=1e-12)


def test_rounding_moves_no_factor(vendor: Vendor, tmp_path: Path) -> None:
    """Yahoo's float32 closes make the ratio flicker every day; the factor moves on the dividend's day only."""
    days = pd.bdate_range("2023-03-01", periods=200).strftime("%Y-%m-%d")
    closes = np.round(np.random.default_rng(6).uniform(15, 25, len(days)), 2)
    bars = tuple(Bar(d, c, c, c, c, 1000) for d, c in zip(days, closes, strict=True))
    paid = 1 - 0.02 / closes[99]
    adjusted = tuple(np.where(np.arange(200) < 100, paid, 1.0) * closes)
    vendor.listings["X"] = Listing(bars, dividends={days[100]: 0.02}, adjusted=adjusted)
    factor = make(tmp_path, "yahoo", ("X",), schedule="XNYS").read().frame[FACTOR]
    assert np.flatnonzero(factor.diff()).tolist()[1:] == [100] and factor.iloc[-1] == 1
    assert factor[0] == pytest.approx(paid, rel=1e-6)


def test_a_split_of_today_does_not_move_the_bars_before(vendor: Vendor, tmp_path: Path) -> None:
    """On the morning of a split Yahoo's history is divided already, and today's bar is not asked in: yesterday's prices
    are still as traded."""
    vendor.listings["AAPL"] = Listing(APPLE[:3], splits={"2020-08-31": (4, 1)})
    vendor.listings["MSFT"] = Listing(APPLE[:2], splits={"2020-08-31": (4, 1)})
    morning = datetime(2020, 8, 31, 15, 0, tzinfo=UTC)
    found = make(tmp_path, "yahoo", ("AAPL", "MSFT"), at=morning, schedule="XNYS").read()
    for name in ("AAPL", "MSFT"):
        assert bars_of(found, name)[CLOSE].tolist() == [500.04, 499.23]
        assert bars_of(found, name)[FACTOR].tolist() == [0.25, 0.25]


def test_lots_become_shares(vendor: Vendor, tmp_path: Path) -> None:
    """Eastmoney's volume is in lots of 100 shares; where its turnover says shares, it stays."""
    listing = flat()
    list_share(vendor, "akshare", "SH600000", listing)
    in_shares = Listing(tuple(Bar(b.day, b.open, b.high, b.low, b.close * 0.01, b.volume * 100) for b in listing.bars))
    list_share(vendor, "akshare", "SH688001", in_shares)
    found = make(tmp_path, "akshare", ("SH600000", "SH688001")).read()
    assert bars_of(found, "SH600000")[VOLUME].tolist() == [1000.0] * 3
    assert bars_of(found, "SH688001")[VOLUME].tolist() == [100_000.0] * 3


def test_indices_are_not_mixed_up_with_shares(vendor: Vendor, tmp_path: Path) -> None:
    """akshare would take SH000300 for the share SZ000300: it is refused, and not asked for."""
    for name in ("SH600000", "SZ000300"):
        list_share(vendor, "akshare", name, flat())
    done = make(tmp_path, "akshare", ("SH600000", "SH000300", "SZ399001", "AAPL"), limits=QUICK.model_copy(
        update={"max_failed_share": 0.75})).read()  # fmt: skip
    assert set(done.failed) == {"SH000300", "SZ399001", "AAPL"}
    assert set(vendor.asked) == {"1.600000", "sh600000"}


def test_a_vendors_script_is_not_run(vendor: Vendor, tmp_path: Path) -> None:
    """akshare evaluates Sina's text; anything but plain data is refused before."""
    mark = tmp_path / "mark"
    list_share(vendor, "akshare", "SH600000", flat())
    list_share(vendor, "akshare", "SH600001", flat())
    vendor.faults["sh600001"] = [Fault(body=f"var x=__import__('pathlib').Path({str(mark)!r}).touch()\n")] * 4
    done = make(tmp_path, "akshare", ("SH600000", "SH600001")).read()
    assert done.failed == {"SH600001": "Sina's factors are not JSON"} and not mark.exists()


@pytest.mark.parametrize("kind", ["akshare", "baostock"])
def test_cumulative_factors_step_on_ex_days(kind: str, vendor: Vendor, tmp_path: Path) -> None:
    """The factor is 1 from the listing, and each step holds from its ex-day on, also one long before the first bar."""
    days = ("2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11")
    late = Listing(flat(days).bars, factors={"2019-06-28": 1.25, "2024-01-10": 1.5})
    early = Listing(flat(days).bars, factors={"2024-01-09": 1.1})
    list_share(vendor, kind, "SH600000", late)
    list_share(vendor, kind, "SZ000001", early)
    found = make(tmp_path, kind, ("SH600000", "SZ000001")).read()
    assert bars_of(found, "SH600000")[FACTOR].tolist() == [1.25, 1.25, 1.5, 1.5]
    assert bars_of(found, "SZ000001")[FACTOR].tolist() == [1.0, 1.1, 1.1, 1.1]


def test_steps_need_no_order() -> None:
    """Factors come newest first or last; no step at all is a factor of 1."""
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[D]")
    assert factor_on(days, ["2024-01-03", "2024-01-02"], [3.0, 2.0]).tolist() == [1, 2, 3]
    assert factor_on(days, [], []).tolist() == [1, 1, 1]


def test_suspended_days_of_baostock_are_left_out(vendor: Vendor, tmp_path: Path) -> None:
    """A flat row without volume is no trade."""
    listing = Listing(flat().bars, suspended=("2024-01-09",))
    list_share(vendor, "baostock", "SH600000", listing)
    found = make(tmp_path, "baostock", ("SH600000",)).read().frame
    assert found[DATETIME].dt.strftime("%Y-%m-%d").tolist() == ["2024-01-08", "2024-01-10"]


@pytest.mark.parametrize("bars", [1999, 2000, 4500])
def test_all_pages_of_baostock_are_read(bars: int, vendor: Vendor, tmp_path: Path) -> None:
    """Bars come in pages of 2,000; a page that fails is no end of the history, although the client takes it for one."""
    days = tuple(pd.date_range("2010-01-01", periods=bars).strftime("%Y-%m-%d"))
    list_share(vendor, "baostock", "SH600000", flat(days))
    vendor.faults["sh.600000"] = [
        Fault(),
        Fault(torn=True),
        Fault(),
        Fault(truncated=True),
        Fault(),
        Fault(status=10005001),
    ]
    found = make(tmp_path, "baostock", ("SH600000",), start=date(2010, 1, 1)).read()
    assert len(found.frame) == bars and not found.failed


def test_a_baostock_that_refuses_us_is_not_asked_again(vendor: Vendor, tmp_path: Path) -> None:
    """On a black list every further request makes it worse: the reading ends with the first."""
    list_share(vendor, "baostock", "SH600000", flat())
    vendor.faults["sh.600000"] = [Fault(status=10001011)]
    with pytest.raises(SourceError, match=r"10001011.*rule vendor_admits_us: .*another source"):
        make(tmp_path, "baostock", ("SH600000", "SH600001")).read()
    assert vendor.asked == ["sh.600000"]


@pytest.mark.parametrize(
    ("kind", "now", "last"),
    [
        ("yahoo", ("2024-01-10T19:00", "XNYS"), "2024-01-09"),
        ("yahoo", ("2024-01-10T22:29", "XNYS"), "2024-01-09"),
        ("yahoo", ("2024-01-10T22:31", "XNYS"), "2024-01-10"),
        ("yahoo", ("2024-01-10T19:00", "XSHG"), "2024-01-09"),
        ("akshare", ("2024-01-10T06:00", "XSHG"), "2024-01-09"),
        ("akshare", ("2024-01-10T09:00", "XSHG"), "2024-01-10"),
        ("baostock", ("2024-01-10T06:00", "XSHG"), "2024-01-09"),
        ("baostock", ("2024-01-10T06:00", "24/7"), "2024-01-09"),
    ],
)
def test_no_unfinished_bar_enters(kind: str, now: tuple[str, str], last: str, vendor: Vendor, tmp_path: Path) -> None:
    """The last bar is that of the newest session that closed 90 minutes ago, by the schedule's and the instrument's own
    exchange, although the vendor already sells today's."""
    name = "AAPL" if kind == "yahoo" else "SH600000"
    if kind == "yahoo":
        vendor.listings["AAPL"] = Listing(flat().bars)
    else:
        list_share(vendor, kind, name, flat())
    at = datetime.fromisoformat(f"{now[0]}+00:00")
    found = make(tmp_path, kind, (name,), at=at, schedule=now[1]).read().frame
    assert f"{found[DATETIME].max():%Y-%m-%d}" == last


FAULTS = {
    "server error": [Fault(status=500), Fault(status=503)],
    "rate limit": [Fault(status=429, retry_after="1")],
    "torn connection": [Fault(torn=True)],
    "slow answer": [Fault(delay_s=1.0)],
    "no JSON": [Fault(body='{"chart": {"result": [')],
    "HTML": [Fault(body="<html>busy</html>")],
    "half a body": [Fault(truncated=True)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_passing_faults_are_recovered_from(kind: str, fault: str, vendor: Vendor, tmp_path: Path) -> None:
    """Whatever goes wrong once or twice, every bar arrives, and arrives right."""
    for name in SHARES[:3]:
        list_share(vendor, kind, name, flat())
    if kind == "baostock" and fault == "server error":
        vendor.faults[spelled(kind, SHARES[1])] = [Fault(status=10005001)]
    else:
        vendor.faults[spelled(kind, SHARES[1])] = list(FAULTS[fault])
    begun = time.monotonic()
    found = make(tmp_path, kind, SHARES[:3]).read()
    assert not found.failed and len(found.frame) == 9
    assert (found.frame[list(PRICES)] == [10.0, 10.5, 9.5, 10.0]).all(axis=None)
    if fault == "rate limit" and kind != "baostock":
        assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_pass_is_reported(kind: str, vendor: Vendor, tmp_path: Path) -> None:
    """An unknown name, an empty history and one that always fails are named with their reasons; the others arrive."""
    for name in SHARES[:3]:
        list_share(vendor, kind, name, flat())
    list_share(vendor, kind, SHARES[3], Listing((), zone="Asia/Shanghai"))
    list_share(vendor, kind, SHARES[4], flat())
    vendor.faults[spelled(kind, SHARES[4])] = [Fault(torn=True) if kind == "baostock" else Fault(status=500)] * 4
    limits = QUICK.model_copy(update={"max_failed_share": 0.6})
    found = make(tmp_path, kind, SHARES[:6], limits=limits).read()
    assert list(found.failed) == list(SHARES[3:6]) and all(found.failed.values())
    assert set(found.frame[INSTRUMENT]) == set(SHARES[:3])
    asked = vendor.times_asked()
    assert [asked[spelled(kind, name)] for name in SHARES[3:5]] == [1, 4] and asked[spelled(kind, SHARES[5])] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_failures_are_an_error_and_lose_nothing(kind: str, vendor: Vendor, tmp_path: Path) -> None:
    """The error names the first, the counts and the remedy; what was fetched is not asked for by the next try."""
    for name in SHARES[:8]:
        list_share(vendor, kind, name, flat())
    limits = QUICK.model_copy(update={"max_failed_share": 0.1})
    with pytest.raises(SourceError, match=r"4 of 12 .*10\.0% may fail: SH600008 \(.*The 8 .* kept: run the sync again"):
        make(tmp_path, kind, SHARES, limits=limits).read()
    for name in SHARES[8:]:
        list_share(vendor, kind, name, flat())
    vendor.asked.clear()
    assert set(make(tmp_path, kind, SHARES, limits=limits).read().frame[INSTRUMENT]) == set(SHARES)
    assert asked_for(vendor, kind) == set(SHARES[8:])


@pytest.mark.parametrize(("kind", "bound"), [("yahoo", 3), ("akshare", 3), ("baostock", 1)])
def test_the_vendor_sees_no_more_at_once_than_allowed(kind: str, bound: int, vendor: Vendor, tmp_path: Path) -> None:
    """Counted by the server; baostock's client is one connection, so one at a time, after one login."""
    for name in SHARES:
        list_share(vendor, kind, name, flat())
    vendor.delay_s = 0.05
    make(tmp_path, kind, SHARES).read()
    assert vendor.most_under_way == bound
    assert vendor.logins == (kind == "baostock")


def test_older_downloads_go_when_a_newer_one_is_complete(vendor: Vendor, tmp_path: Path) -> None:
    """Another day is another folder; the older one stays until the newer one is whole."""
    for name in SHARES[:2]:
        list_share(vendor, "akshare", name, flat())
    place = tmp_path / "data" / "downloads" / "shop"
    make(tmp_path, "akshare", SHARES[:2], at=datetime(2024, 1, 9, 12, tzinfo=UTC)).read()
    (older,) = [path for path in place.iterdir() if path.is_dir()]
    vendor.faults[spelled("akshare", SHARES[0])] = [Fault(torn=True)] * 4
    with pytest.raises(SourceError):
        make(tmp_path, "akshare", SHARES[:2], limits=QUICK.model_copy(update={"max_failed_share": 0.0})).read()
    assert older.is_dir()
    make(tmp_path, "akshare", SHARES[:2]).read()
    (newer,) = [path for path in place.iterdir() if path.is_dir()]
    assert newer != older and sorted(path.name for path in newer.iterdir()) == ["SH600000.parquet", "SH600001.parquet"]


PROGRAM = textwrap.dedent("""
    import sys
    from pathlib import Path
    from baostock.common import contants
    from tests.data.sources.test_vendors import QUICK, SHARES, make
    contants.BAOSTOCK_SERVER_IP, contants.BAOSTOCK_SERVER_PORT = sys.argv[3], int(sys.argv[4])
    limits = QUICK.model_copy(update={"timeout_s": 60.0, "concurrency": 2})
    make(Path(sys.argv[1]), sys.argv[2], SHARES, limits=limits).read()
""")


def start_reading(home: Path, kind: str) -> Program:
    """A process that reads all shares from the local vendor."""
    from baostock.common import contants

    address = [contants.BAOSTOCK_SERVER_IP, str(contants.BAOSTOCK_SERVER_PORT)]
    return programs.start(PROGRAM, home, kind, *address)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill_only_the_rest_is_asked_for(kind: str, vendor: Vendor, tmp_path: Path) -> None:
    """kill -9 in the middle: the next reading is whole, and asks for none of what was finished."""
    for name in SHARES:
        list_share(vendor, kind, name, flat())
    vendor.delay_s = 0.1
    process = start_reading(tmp_path, kind)
    wait_until(lambda: len(list(tmp_path.rglob("[!.]*.parquet"))) >= 4)
    process.kill()
    process.wait()
    finished = {path.stem for path in tmp_path.rglob("[!.]*.parquet")}
    assert 4 <= len(finished) < 12
    wait_until(lambda: vendor.under_way == 0)
    vendor.asked.clear()
    vendor.delay_s = 0
    found = make(tmp_path, kind, SHARES).read()
    assert len(found.frame) == 36 and not found.failed
    assert asked_for(vendor, kind) == set(SHARES) - finished


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_is_heeded_while_the_vendor_keeps_us_waiting(
    kind: str, signal_sent: signal.Signals, vendor: Vendor, tmp_path: Path
) -> None:
    """With requests under way that would take half a minute, the process ends within three seconds."""
    for name in SHARES:
        list_share(vendor, kind, name, flat())
    vendor.delay_s = 30
    process = start_reading(tmp_path, kind)
    wait_until(lambda: vendor.under_way > 0)
    begun = time.monotonic()
    process.send_signal(signal_sent)
    assert process.wait(timeout=20) != 0
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_client_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and how to install it."""
    package = SOURCES[kind].package
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SourceError, match=f"rule package_installed: .*{kind}.*pip install -c requirements.txt {package}"
    ):
        make(tmp_path, kind, ("SH600000",)).read()


def test_instruments_come_from_a_list_a_file_or_the_universe(tmp_path: Path) -> None:
    """One name a line or membership spells, repeats dropped; without any there is an error that says where to name
    them."""
    (tmp_path / "names.txt").write_text("SH600001\n\nSH600000\nSH600001\n")
    (tmp_path / "csi300.txt").write_text("SH600000\t2010-01-01\t2012-01-01\nSH600000\t2014-01-01\t2015-01-01\n")
    assert make(tmp_path, "akshare", ("B", "A", "B")).instruments() == ["B", "A"]
    assert make(tmp_path, "akshare", str(tmp_path / "names.txt")).instruments() == ["SH600001", "SH600000"]
    source = make(tmp_path, "akshare", ())
    with pytest.raises(
        SourceError, match=r"rule instruments_given: .*data\.sources\.shop\.instruments .*data\.universe"
    ):
        source.instruments()
    data = source.settings.data.model_copy(update={"universe": str(tmp_path / "csi300.txt")})
    source.settings = source.settings.model_copy(update={"data": data})
    assert source.instruments() == ["SH600000"]
    with pytest.raises(SourceNotFoundError, match=r"none\.txt: rule instruments_exist: .*correct data\.sources\.shop"):
        make(tmp_path, "akshare", str(tmp_path / "none.txt")).instruments()


def test_a_vendor_is_read_by_its_name_in_the_settings(vendor: Vendor, tmp_path: Path) -> None:
    """`read_source` finds it, asks for the universe's names, and brings the universe along."""
    list_share(vendor, "akshare", "SH600000", flat())
    (tmp_path / "csi300.txt").write_text("SH600000\t2010-01-01\t2025-01-01\n")
    settings = make(tmp_path, "akshare", ()).settings
    data = settings.data.model_copy(update={"universe": str(tmp_path / "csi300.txt")})
    settings = settings.model_copy(update={"data": data})
    found = read_source(settings, "shop", str(tmp_path / "csi300.txt"))
    assert len(found.frame) == 3 and found.universe is not None and found.source == "shop"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("AAPL", "AAPL"),
        ("BRK.B", "BRK-B"),
        ("SH600000", "600000.SS"),
        ("SZ000001", "000001.SZ"),
        ("BJ430047", "430047.BJ"),
        ("^GSPC", "^GSPC"),
        ("BTC-USD", "BTC-USD"),
        ("VOD.L", "VOD.L"),
        ("7203.T", "7203.T"),
    ],
)
def test_yahoos_spelling(ours: str, theirs: str) -> None:
    """Share classes and A-shares are translated, Yahoo's own suffixes stay."""
    assert yahoo_symbol(ours) == theirs


def test_calendars_follow_the_suffix(tmp_path: Path) -> None:
    """Each suffix has a known calendar; coins trade always, names without a suffix in New York."""
    for calendar in CALENDARS.values():
        check_calendar(calendar)
    source = make(tmp_path, "yahoo", ("AAPL",), schedule="XSHG")
    found = {name: source.calendar_of(name) for name in ("AAPL", "BRK.B", "SH600000", "VOD.L", "BTC-USD", "X.QQ")}
    assert found == {
        "AAPL": "XNYS", "BRK.B": "XNYS", "SH600000": "XSHG", "VOD.L": "XLON", "BTC-USD": "24/7", "X.QQ": "XSHG",
    }  # fmt: skip


def test_only_a_shares_have_an_exchange_in_their_name() -> None:
    """SH, SZ or BJ and six digits; all else is refused with that rule."""
    assert a_share("BJ430047") == ("BJ", "430047")
    for name in ("AAPL", "600000", "SH60000", "sh600000"):
        with pytest.raises(UnavailableError, match="six digits"):
            a_share(name)
