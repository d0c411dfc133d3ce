"""Local servers that speak the vendors' formats, with their errors.

The HTTP ones are a proxy that answers in the vendors' place: the client libraries run unchanged, and find it by
`https_proxy` and its certificate by `REQUESTS_CA_BUNDLE`. baostock's own protocol has a server of its own.
"""

import json
import socketserver
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import numpy as np

HOSTS = (
    "query1.finance.yahoo.com",
    "query2.finance.yahoo.com",
    "fc.yahoo.com",
    "guce.yahoo.com",
    "push2his.eastmoney.com",
    "finance.sina.com.cn",
)


@dataclass(frozen=True)
class Fault:
    """One bad answer."""

    status: int = 200
    retry_after: str | None = None
    body: str | None = None
    torn: bool = False
    truncated: bool = False
    delay_s: float = 0.0


@dataclass(frozen=True)
class Bar:
    """One bar as it was traded; volume in shares."""

    day: str
    open: float
    high: float
    low: float
    close: float
    volume: int


@dataclass(frozen=True)
class Listing:
    """An instrument's truth: its bars, splits (ex-day to new shares for an old one), and cumulative factors (ex-day to
    raw to back-adjusted). `adjusted` are Yahoo's adjusted closes, none: the closes."""

    bars: tuple[Bar, ...]
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    dividends: dict[str, float] = field(default_factory=dict)
    adjusted: tuple[float, ...] = ()
    factors: dict[str, float] = field(default_factory=dict)
    suspended: tuple[str, ...] = ()
    zone: str = "America/New_York"


@dataclass
class Vendor:
    """What a server answers with, what it was asked, and how many requests were under way at once."""

    listings: dict[str, Listing] = field(default_factory=dict)
    """By the vendor's own spelling."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """Answers that come first, one a request for bars of that symbol."""
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    """Symbols of all requests for bars, in their order."""
    asked_at: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    logins: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def request(self, symbol: str) -> Iterator[Fault]:
        """Count a request, and yield the fault that it meets; an empty one is none."""
        with self._lock:
            self.asked.append(symbol)
            self.asked_at.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            waiting = self.faults.get(symbol, [])
            fault = waiting.pop(0) if waiting else Fault()
        time.sleep(self.delay_s + fault.delay_s)
        try:
            yield fault
        finally:
            with self._lock:
                self.under_way -= 1

    def times_asked(self) -> Counter[str]:
        """Requests for bars, by symbol."""
        return Counter(self.asked)


def yahoo_chart(symbol: str, listing: Listing | None) -> tuple[int, str]:
    """Yahoo's chart answer: closes divided by later splits, as float32; volume multiplied by them."""
    if listing is None:
        error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
        return 404, json.dumps({"chart": {"result": None, "error": error}})
    zone = ZoneInfo(listing.zone)

    def opening(day: str) -> int:
        return int(datetime.fromisoformat(f"{day}T09:30").replace(tzinfo=zone).timestamp())

    def later(day: str) -> float:
        return float(np.prod([new / old for ex_day, (new, old) in listing.splits.items() if ex_day > day]))

    def sent(values: list[float]) -> list[float]:
        return [float(np.float32(value)) for value in values]

    bars = listing.bars
    quote = {name: sent([getattr(b, name) / later(b.day) for b in bars]) for name in ("open", "high", "low", "close")}
    volume = [int(b.volume * later(b.day)) for b in bars]
    events = {
        "splits": {
            str(opening(day)): {
                "date": opening(day),
                "numerator": new,
                "denominator": old,
                "splitRatio": f"{new}:{old}",
            }
            for day, (new, old) in listing.splits.items()
        },
        "dividends": {
            str(opening(day)): {"date": opening(day), "amount": amount} for day, amount in listing.dividends.items()
        },
    }
    meta = {
        "currency": "USD",
        "symbol": symbol,
        "instrumentType": "EQUITY",
        "exchangeTimezoneName": listing.zone,
        "timezone": "EST",
        "gmtoffset": -18000,
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "max"],
        "priceHint": 2,
    }
    result = {"meta": meta, "indicators": {"quote": [{}]}}
    if bars:
        adjusted = sent(list(listing.adjusted)) if listing.adjusted else quote["close"]
        result |= {
            "timestamp": [opening(b.day) for b in bars],
            "events": events,
            "indicators": {"quote": [{**quote, "volume": volume}], "adjclose": [{"adjclose": adjusted}]},
        }
    return 200, json.dumps({"chart": {"result": [result], "error": None}})


def eastmoney_klines(listing: Listing | None, first: str, last: str) -> str:
    """Eastmoney's daily klines: day, open, close, high, low, lots, turnover, and four numbers that nobody reads."""
    if listing is None:
        return json.dumps({"rc": 0, "data": None})
    lines = [
        f"{b.day},{b.open},{b.close},{b.high},{b.low},{b.volume // 100},{b.volume * b.close:.2f},0,0,0,0"
        for b in listing.bars
        if first <= b.day.replace("-", "") <= last and b.day not in listing.suspended
    ]
    return json.dumps({"rc": 0, "data": {"klines": lines}})


def sina_factors(symbol: str, listing: Listing) -> str:
    """Sina's script of cumulative factors, newest first, 1 from 1900 on."""
    steps = {"1900-01-01": 1.0} | listing.factors
    data = [{"d": day, "f": f"{factor:.16f}"} for day, factor in sorted(steps.items(), reverse=True)]
    return f"var {symbol}hfq=" + json.dumps({"total": len(data), "data": data}) + "\n/* served here */"


class _ProxyHandler(BaseHTTPRequestHandler):
    """Accepts every CONNECT and answers in the place of the host that was meant."""

    protocol_version = "HTTP/1.1"
    server: "VendorProxy"

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
        self.close_connection = False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        host = self.headers["Host"]
        vendor = self.server.vendor
        if url.path.startswith("/v8/finance/chart/"):
            symbol = url.path.rsplit("/", 1)[-1]
            if query.get("range") == "1d":  # yfinance asks once for the time zone
                self._answer(*yahoo_chart(symbol, vendor.listings.get(symbol)))
            else:
                self._answer_bars(symbol, lambda: yahoo_chart(symbol, vendor.listings.get(symbol)))
        elif url.path == "/v1/test/getcrumb":
            self._answer(200, "a-crumb")
        elif url.path == "/api/qt/stock/kline/get":
            symbol = query["secid"]
            listing = vendor.listings.get(symbol)
            self._answer_bars(symbol, lambda: (200, eastmoney_klines(listing, query["beg"], query["end"])))
        elif url.path.endswith("/hfq.js"):
            name = url.path.split("/")[-2]
            self._answer_bars(name, lambda: (200, sina_factors(name, vendor.listings[name])))
        else:
            self._answer(
                404,
                f"nothing at {host}{url.path}",
                {"Set-Cookie": "A3=cookie; Max-Age=31536000; Domain=.yahoo.com; Path=/"},
            )

    def _answer_bars(self, symbol: str, answer: Callable[[], tuple[int, str]]) -> None:
        with self.server.vendor.request(symbol) as fault:
            if fault.torn:
                self.close_connection = True
            elif fault.status != 200:
                headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
                self._answer(fault.status, "<html>no</html>", headers)
            elif fault.truncated:
                status, text = answer()
                self._answer(status, text, cut=len(text) // 2)
            else:
                self._answer(*(answer() if fault.body is None else (200, fault.body)))

    def _answer(self, status: int, text: str, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        content = text.encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])
        except OSError:  # the client had enough
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


class VendorProxy(ThreadingHTTPServer):
    """The proxy that stands for Yahoo, Eastmoney and Sina."""

    daemon_threads = True

    def __init__(self, vendor: Vendor, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.vendor = vendor
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)

    def handle_error(self, request: object, client_address: object) -> None:
        return


class _BaostockHandler(socketserver.StreamRequestHandler):
    server: "BaostockServer"

    def handle(self) -> None:
        for line in self.rfile:
            message = line.decode().removesuffix("\n")
            content, _, checksum = message.rpartition("\1")
            assert int(checksum) == zlib.crc32(content.encode())
            kind, body = content[8:10], content[21:].split("\1")
            if kind == "00":
                self.server.vendor.logins += 1
                self._answer("01", ["0", "success", "login", body[1]])
            elif kind == "02":
                self._answer("03", ["0", "success", "logout", body[1]])
            elif not self._answer_query(kind, body):
                return

    def _answer_query(self, kind: str, body: list[str]) -> bool:
        """Whether the connection goes on."""
        method, user, page, per_page, code = body[:5]
        vendor = self.server.vendor
        with vendor.request(code if kind == "95" else f"{code} factors") as fault:
            listing = vendor.listings.get(code)
            if fault.torn:
                return False
            if fault.status != 200:
                self._answer("04", [str(fault.status), "no", method, user])
            elif fault.body is not None:
                self.wfile.write(_header("96", len(fault.body)) + fault.body.encode() + b"<![CDATA[]]>\n")
            elif listing is None:
                self._answer("04", ["10004011", "no such code", method, user])
            elif kind == "95":
                fields, first, last, frequency, flag = body[5:10]
                rows = [_baostock_row(b, listing) for b in listing.bars if first <= b.day <= last]
                start = (int(page) - 1) * int(per_page)
                records = json.dumps({"record": rows[start : start + int(per_page)]})
                head = ["0", "success", method, user, page, per_page, records]
                self._answer("96", [*head, code, fields, first, last, frequency, flag], cut=fault.truncated)
            else:
                first, last = body[5:7]
                rows = [
                    [code, day, "1.0", f"{factor:.6f}", f"{factor:.6f}"]
                    for day, factor in sorted(listing.factors.items())
                    if first <= day <= last
                ]
                fields = "code,dividOperateDate,foreAdjustFactor,backAdjustFactor,adjustFactor"
                head = ["0", "success", method, user, page, per_page, json.dumps({"record": rows})]
                self._answer("16", [*head, code, first, last, fields])
        return True

    def _answer(self, kind: str, body: list[str], cut: bool = False) -> None:
        content = "\1".join([*body, "0"]).encode()
        if kind == "96":
            content = zlib.compress(content)
            content = content[: len(content) // 2] if cut else content
        self.wfile.write(_header(kind, len(content)) + content + b"<![CDATA[]]>\n")


class BaostockServer(socketserver.ThreadingTCPServer):
    """Speaks baostock's protocol: a header (version, kind, length), fields between \\1, an end mark; bars zipped."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(("127.0.0.1", 0), _BaostockHandler)
        self.vendor = vendor

    def handle_error(self, request: object, client_address: object) -> None:
        return


def _header(kind: str, length: int) -> bytes:
    return f"00.9.40\1{kind}\1{length:010d}".encode()


def _baostock_row(bar: Bar, listing: Listing) -> list[str]:
    if bar.day in listing.suspended:
        return [bar.day, *[f"{bar.close:.10f}"] * 4, "", "0"]
    return [bar.day, *[f"{p:.10f}" for p in (bar.open, bar.high, bar.low, bar.close)], str(bar.volume), "1"]


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread until the block ends."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def make_certificate(path: Path) -> Path:
    """A certificate for the vendors' hosts, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vendors in tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
