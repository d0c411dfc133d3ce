"""A-shares and Chinese indices through baostock."""

import logging
import socket
from functools import cache
from types import ModuleType
from typing import Any

import pandas as pd

from mlops_tasks.columns import DATETIME, FACTOR, PRICES, VOLUME
from mlops_tasks.config import DownloadSettings
from mlops_tasks.data.sources.download import Pace, TransientError, UnavailableError
from mlops_tasks.data.sources.vendor import VendorBars, a_share, factor_on
from mlops_tasks.errors import SourceError

log = logging.getLogger(__name__)

_FIELDS = ("date", *PRICES, VOLUME, "tradestatus")
_EX_DAY, _CUMULATIVE = "dividOperateDate", "backAdjustFactor"
_RAW = "3"
_SUSPENDED = "0"
_FIRST_EX_DAY = "1990-01-01"
"""Before any listing: factors are cumulative, so all of an instrument's are needed."""

_OK = "0"
_WRONG_REQUEST = "10004"
"""How the numbers of baostock's errors about the request itself begin."""
_REFUSED = ("10001004", "10001006", "10001007", "10001011")
"""Client too old, no permission, not activated, blacklisted: no request will succeed."""


class BaostockSource(VendorBars):
    """Daily bars of A-shares and indices.

    Prices are unadjusted, volume is in shares. The factor is baostock's cumulative `backAdjustFactor`: 1 at the
    listing, a step on each ex-day, and history does not change when a new dividend comes. Suspended days, which
    baostock reports as flat rows (`tradestatus` 0), are left out: nothing was traded.

    Its client is one connection per process, so instruments are requested one after the other.
    """

    package = "baostock"

    @property
    def limits(self) -> DownloadSettings:
        return self.spec.download.model_copy(update={"concurrency": 1})

    def open(self, pace: Pace) -> None:
        self._pace = pace
        self._client = _client()
        self._logged_in = False

    def close(self) -> None:
        if self._logged_in:
            try:
                self._client.logout()
            except OSError as error:
                log.info("%s: logout failed: %s", self.name, error)

    def fetch(self, instrument: str) -> pd.DataFrame:
        exchange, code = a_share(instrument)
        name = f"{exchange.lower()}.{code}"
        last = self.end.isoformat()
        try:
            self._log_in()
            bars = self._table(
                self._client.query_history_k_data_plus, name, ",".join(_FIELDS), self.spec.start.isoformat(), last,
                adjustflag=_RAW,
            )  # fmt: skip
            steps = self._table(self._client.query_adjust_factor, name, _FIRST_EX_DAY, last)
        except (OSError, TransientError):
            self._logged_in = False  # the connection may be in the middle of an answer
            raise
        steps = steps.reindex(columns=[_EX_DAY, _CUMULATIVE])
        bars = bars[bars["tradestatus"] != _SUSPENDED]
        when = pd.to_datetime(bars["date"])
        return pd.DataFrame(
            {
                DATETIME: when,
                **{field: pd.to_numeric(bars[field]) for field in (*PRICES, VOLUME)},
                FACTOR: factor_on(when, steps[_EX_DAY], steps[_CUMULATIVE].astype(float)),
            }
        )

    def _log_in(self) -> None:
        if not self._logged_in:
            _connection.timeout_s = self.limits.timeout_s
            self._pace.wait()
            _check(self._client.login())
            self._logged_in = True

    def _table(self, query: Any, *args: str, **options: str) -> pd.DataFrame:
        """All pages of an answer, as text."""
        self._pace.wait()
        answer = query(*args, **options)
        _check(answer)
        rows = []
        while answer.next():
            rows.append(answer.get_row_data())
        _check(answer)
        return pd.DataFrame(rows, columns=answer.fields)


def _check(answer: Any) -> None:
    """Raise the fitting error unless the answer is good."""
    if answer.error_code == _OK:
        return
    message = f"baostock error {answer.error_code}: {answer.error_msg}"
    if answer.error_code in _REFUSED:
        raise SourceError(f"{message}; rule vendor_admits_us: ask baostock for access, or use another source")
    raise UnavailableError(message) if answer.error_code.startswith(_WRONG_REQUEST) else TransientError(message)


class _Connection:
    """The client's socket with a time limit, after which it raises an error: the client itself would wait for ever."""

    timeout_s = 30.0

    def connect(self, _api_key: str) -> None:
        """Replace the client's connection by a new one."""
        from baostock.common import contants, context

        if old := getattr(context, "default_socket", None):
            old.close()
        context.default_socket = None
        address = (contants.BAOSTOCK_SERVER_IP, contants.BAOSTOCK_SERVER_PORT)
        self._socket = socket.create_connection(address, self.timeout_s)
        context.default_socket = self

    def send(self, message: bytes) -> None:
        self._socket.sendall(message)

    def recv(self, size: int) -> bytes:
        chunk = self._socket.recv(size)
        if not chunk:
            raise ConnectionError("baostock closed the connection")
        return chunk

    def close(self) -> None:
        self._socket.close()


_connection = _Connection()


@cache
def _client() -> ModuleType:
    """The package, with our connection in place of its own, its prints in the log, and its swallowed errors raised."""
    import baostock
    from baostock.evaluation import season_index
    from baostock.login import loginout
    from baostock.security import history
    from baostock.util import socketutil

    for module in (history, loginout, season_index, socketutil):
        module.print = log.debug
    exchange = socketutil.send_msg

    def send_msg(message: str) -> str:
        answer = exchange(message)
        if answer is None:  # what the client makes of every error on the way, at the end of a page too
            raise TransientError("baostock did not answer, or not completely")
        return str(answer)

    socketutil.send_msg = send_msg
    socketutil.SocketUtil = lambda: _connection
    return baostock
