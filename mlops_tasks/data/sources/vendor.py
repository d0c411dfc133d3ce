"""What all vendors share: which instruments are requested, up to which day, and what becomes of the answers."""

import importlib
import logging
import re
import shutil
from abc import ABC, abstractmethod
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT
from mlops_tasks.config import DownloadSettings, Settings, VendorSource
from mlops_tasks.data.exchanges.calendars import last_closed_session
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.cells import is_instrument
from mlops_tasks.data.sources.download import Download, Downloaded, Pace, UnavailableError, read_downloaded
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW, ParsedBars, RawFile
from mlops_tasks.data.sources.unreadable import reason_of
from mlops_tasks.errors import SourceError, SourceNotFoundError, SourceUnavailableError, first_few
from mlops_tasks.files import digest_of, digest_of_file, folder_lock

log = logging.getLogger(__name__)

_FORMAT = 1
"""Increased when the meaning of a kept frame changes, so that older ones are not reused."""
A_SHARE = re.compile(r"(SH|SZ|BJ)(\d{6})")
"""Shares and indices of Shanghai, Shenzhen and Beijing, as this project spells them."""


class VendorBars(ABC):
    """A vendor that is asked for one instrument at a time; a `BarSource`.

    Bars end with the last closed session of `calendar.schedule`, and with that of the instrument's own exchange: the
    unfinished bar of a session under way never enters. What was fetched is kept below
    `data/downloads/<source>/<digest of query and end date>/`, so an interrupted reading resumes where it stopped and a
    repeated one requests nothing. Remove that folder to request everything again. Folders of earlier days are removed
    when a newer one is complete.

    Parameters
    ----------
    settings, name, spec
        All settings, and the entry `data.sources.<name>` of them.
    at
        The moment (aware) that bars are asked for; none: now.
    """

    package: ClassVar[str]
    """The vendor's client, an extra of this project."""

    def __init__(self, settings: Settings, name: str, spec: VendorSource, at: datetime | None = None) -> None:
        self.settings = settings
        self.spec = spec
        self._name = name
        self._at = at

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> DownloadSettings:
        """The limits for requests to the vendor."""
        return self.spec.download

    @abstractmethod
    def open(self, pace: Pace) -> None:
        """Get the vendor's client ready; each of its requests starts with `pace.wait()`."""

    @abstractmethod
    def fetch(self, instrument: str) -> pd.DataFrame:
        """Bars from `spec.start` on, by day: `datetime` (midnight of the local session date) and `BAR_FIELDS`, of which
        a missing one is NaN. Raw prices, volume in shares, factor = adjusted / raw.

        Raises
        ------
        UnavailableError
            The vendor does not know the instrument.
        """

    def close(self) -> None:
        """End the vendor's session after a download that was not interrupted."""
        return

    def calendar_of(self, instrument: str) -> str:
        """The calendar of the exchange that the instrument is traded on."""
        return "XSHG" if A_SHARE.fullmatch(instrument) else self.settings.calendar.schedule

    def read(self) -> ParsedBars:
        """Fetch what is missing and read all of it; `failed` says which instruments could not be fetched, and why.

        Raises
        ------
        SourceError, SourceNotFoundError
            The client is not installed, there are no instruments, or more than `download.max_failed_share` of them
            failed; names the remedy.
        StoreError
            An answer could not be written.
        """
        self._check_package()
        instruments = self.instruments()
        place = self.settings.data_dir / "downloads" / quote(self.name, safe="")
        query = {"kind": self.spec.kind, "start": str(self.spec.start), "end": str(self.end), "format": _FORMAT}
        folder = place / digest_of(query)
        with folder_lock(place):
            done = self._download(folder, instruments)
            self._check_failures(done, len(instruments))
            parsed = self._parsed(done)
            for stale in place.iterdir():
                if stale.is_dir() and stale != folder:
                    shutil.rmtree(stale, ignore_errors=True)
        return parsed

    @cached_property
    def at(self) -> datetime:
        """The moment for which bars are requested."""
        return self._at or datetime.now(UTC)

    @cached_property
    def end(self) -> date:
        """The last day that is requested."""
        return self._last_closed(self.settings.calendar.schedule)

    def instruments(self) -> list[str]:
        """Names in the project's spelling, in the order of the settings, without repeats.

        Raises
        ------
        SourceError, SourceNotFoundError
            There are none, or their file is missing.
        """
        given = self.spec.instruments or self.settings.data.universe or ()
        names = self._names_in(given) if isinstance(given, str) else list(given)
        if not names:
            raise SourceError(
                f"{self.name}: rule instruments_given: no instrument to request; set "
                f"data.sources.{self.name}.instruments (a list, or a file with one name per line) or data.universe"
            )
        return list(dict.fromkeys(names))

    def _names_in(self, given: str) -> list[str]:
        """The first word of each line of a list or membership file."""
        allowed = AllowedFiles.of(self.settings)
        path = allowed.check(given)
        try:
            with allowed.open(path) as file:
                lines = file.read().decode("utf-8-sig").splitlines()
        except SourceError:
            raise
        except FileNotFoundError:
            raise SourceNotFoundError(
                f"{path}: rule instruments_exist: no such file of instruments; correct "
                f"data.sources.{self.name}.instruments or data.universe"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{path}: rule readable_file: {reason_of(error)}; write one instrument per line, in UTF-8"
            ) from None
        names = {number: re.split(r"[\s,]", line.strip())[0] for number, line in enumerate(lines, 1) if line.strip()}
        for number, name in names.items():
            if not is_instrument(name):
                raise SourceError(
                    f"{path}, line {number}: rule instruments_named: it does not begin with a name; write one per line"
                )
        return list(names.values())

    def _check_package(self) -> None:
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            raise SourceError(
                f"{self.name}: rule package_installed: the source kind {self.spec.kind} needs the package "
                f"{self.package} ({error}); install it at the version that requirements.txt names: "
                f"pip install -c requirements.txt {self.package}"
            ) from None

    def _download(self, folder: Path, instruments: list[str]) -> Downloaded:
        pace = Pace(self.limits.requests_per_s)
        self.open(pace)
        done = Download(self.name, folder, self._fetch_closed, self.limits, pace).run(instruments)
        self.close()
        return done

    def _fetch_closed(self, instrument: str) -> pd.DataFrame:
        """Bars of closed sessions within the requested days."""
        frame = self.fetch(instrument).reindex(columns=[DATETIME, *BAR_FIELDS])
        first, last = self.spec.start, min(self.end, self._last_closed(self.calendar_of(instrument)))
        inside = frame[DATETIME].between(pd.Timestamp(first), pd.Timestamp(last))
        if not inside.any():
            raise UnavailableError(f"no bars from {first} to {last}")
        return frame[inside].astype({DATETIME: "datetime64[ns]"} | dict.fromkeys(BAR_FIELDS, "float64"))

    def _last_closed(self, calendar: str) -> date:
        return last_closed_session(calendar, self.at, timedelta(minutes=self.settings.calendar.delay_min))

    def _check_failures(self, done: Downloaded, asked: int) -> None:
        limit = self.limits.max_failed_share
        if done.files and len(done.failed) <= limit * asked:
            return
        named = first_few(f"{name} ({reason})" for name, reason in done.failed.items())
        raise SourceUnavailableError(
            f"{self.name}: rule max_failed_share: {len(done.failed)} of {asked} instruments could not be fetched, "
            f"{limit:.1%} may fail: {named}"
            + (f"; {done.not_asked} were not asked for any more" if done.not_asked else "")
            + f". The {len(done.files)} that were fetched are kept: run the sync again, or correct "
            f"data.sources.{self.name}.instruments or raise data.sources.{self.name}.download.max_failed_share"
        )

    def _parsed(self, done: Downloaded) -> ParsedBars:
        frames = [read_downloaded(path) for path in done.files.values()]
        rows = [len(frame) for frame in frames]
        names = np.array(list(done.files), dtype=object)
        labels = [f"{self.name}/{name}" for name in names]
        frame = pd.concat(frames, ignore_index=True)
        frame[INSTRUMENT] = pd.array(np.repeat(names, rows), dtype="str")
        frame[SOURCE_FILE] = pd.Categorical.from_codes(np.repeat(np.arange(len(rows)), rows), labels)
        frame[SOURCE_ROW] = np.concatenate([np.arange(1, count + 1) for count in rows])
        frame[PARSE_ERROR] = pd.Series(None, index=frame.index, dtype="str")
        raw = tuple(
            RawFile(label, digest_of_file(path), count)
            for label, path, count in zip(labels, done.files.values(), rows, strict=True)
        )
        return ParsedBars(frame[list(PARSED_COLUMNS)], self.name, raw=raw, failed=done.failed)


def a_share(instrument: str) -> tuple[str, str]:
    """Exchange (SH, SZ or BJ) and code of an A-share or an index: SH600000 is ("SH", "600000").

    Raises
    ------
    UnavailableError
        The name is none of them.
    """
    match = A_SHARE.fullmatch(instrument)
    if match is None:
        raise UnavailableError(f"{instrument} is not an A-share: write SH, SZ or BJ and six digits, as in SH600000")
    return match[1], match[2]


def factor_on(days: Any, ex_days: Any, factors: Any) -> Any:
    """Factor of each day (n,): that of the last ex-day on or before it, 1 before the first one.

    `ex_days` (m,) in any order, `factors` (m,) cumulative (raw to back-adjusted prices).
    """
    order = np.argsort(np.asarray(ex_days, dtype="datetime64[D]"), kind="stable")
    steps = np.concatenate([[1.0], np.asarray(factors, dtype=np.float64)[order]])
    sorted_days = np.asarray(ex_days, dtype="datetime64[D]")[order]
    return steps[np.searchsorted(sorted_days, np.asarray(days, dtype="datetime64[D]"), side="right")]
