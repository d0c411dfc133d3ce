"""What a person has let through a rule: one file each in `data/releases/`, never changed and never removed.

A release is bound to what it was given for, not to the sync: a rule, an instrument and a date, with the digest of the
row's values, so that a row that changes afterwards is judged again; for a rule about a whole instrument, all its
evidence up to a date; for a rule about a session, a calendar and a date. The releases are part of the rules, so the
next sync of the same content validates again.
"""

import getpass
import hashlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.files import digest_of, read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """What is let through, by whom and why."""

    rule: str
    instrument: str
    """The calendar of the session, for a rule about sessions."""
    date: str
    """The row's or the session's date; for a rule about the instrument the last date whose evidence is covered. ISO."""
    values: str
    """`row_digest` of the row; empty for a rule about the instrument or the session."""
    reason: str
    released_by: str
    released_at: str

    @property
    def identity(self) -> str:
        """Digest of what is let through. Who, why and when are not part of it."""
        return digest_of([self.rule, self.instrument, self.date, self.values])


def row_digest(row: Mapping[str, Any]) -> str:
    """Digest of a bar's fields. All NaNs count as equal."""
    values = np.array([row[name] for name in BAR_FIELDS], dtype="<f8")
    values[np.isnan(values)] = np.nan
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def releases_path(settings: Settings) -> Path:
    """The folder of all releases."""
    return settings.data_dir / "releases"


def load_releases(settings: Settings) -> tuple[Release, ...]:
    """All releases, in the order of their identities."""
    return tuple(Release(**read_json(path)) for path in sorted(releases_path(settings).glob("[!.]*.json")))


def write_release(settings: Settings, release: Release) -> Release:
    """Store a release and return it, or return an existing one that lets the same through."""
    path = releases_path(settings) / f"{release.identity}.json"
    if path.is_file():
        return Release(**read_json(path))
    write_json(path, asdict(release))
    log.info("%s is released from rule %s by %s", release.instrument, release.rule, release.released_by)
    return release


def make_release(  # noqa: PLR0913 - what is let through, by whom and why
    *, rule: str, name: str, day: date, values: str, reason: str, by: str = ""
) -> Release:
    """The release of a row (`values`: its digest), or of an instrument or session (empty).

    Parameters
    ----------
    by
        Who; default: the system's user.

    Raises
    ------
    StoreError
        No reason is given.
    """
    if not reason.strip():
        raise StoreError("a release needs a reason; give one with --reason")
    return Release(
        rule=rule,
        instrument=name,
        date=day.isoformat(),
        values=values,
        reason=reason.strip(),
        released_by=by or getpass.getuser(),
        released_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


NEVER = {
    "table_not_empty": "there is nothing to let through",
    "distinct_names": "the Qlib store has one folder for both names; rename one of them at the source",
    "datetime_present": "a bar without a date has no place in a vintage; fill it in at the source",
    "instrument_present": "a bar without an instrument has no place in a vintage; fill it in at the source",
}
"""Rule to why nothing can be released from it."""


def release_command(rule: str, instrument: Any, day: Any, calendar: str) -> str:
    """The command that lets a row or an instrument (`instrument`), or a session (`calendar`), through a rule; empty
    where nothing does. `day` is a moment, or a word that stands for one."""
    if rule in NEVER or (not calendar and pd.isna(instrument)) or pd.isna(day):
        return ""
    when = day if isinstance(day, str) else pd.Timestamp(day).date().isoformat()
    about = f"--calendar {shlex.quote(calendar)}" if calendar else f"--instrument {_quoted(instrument)}"
    return f'alphaops release --rule {rule} {about} --date {when} --reason "..."'


def _quoted(name: str) -> str:
    """For a shell; `<names>` in angle brackets are placeholders and stay as they are."""
    return name if name.startswith("<") else shlex.quote(str(name))


def covers_row(releases: Sequence[Release], row: Mapping[str, Any], day: date) -> bool:
    """Whether one of a rule's and instrument's releases is for this very row."""
    return any(r.date == day.isoformat() and r.values == row_digest(row) for r in releases)


def covers_instrument(releases: Sequence[Release], evidence: date) -> bool:
    """Whether one of a rule's and instrument's releases covers evidence of this date."""
    return any(not r.values and evidence.isoformat() <= r.date for r in releases)


def covers_session(releases: Sequence[Release], day: date) -> bool:
    """Whether one of a rule's and calendar's releases is for this session."""
    return any(r.date == day.isoformat() for r in releases)
