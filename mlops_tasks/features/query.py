"""Some stored features, few enough to be told in one answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, ErrorKind, StoreError, first_few
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import finite_or_none

MOST_DAYS = 370
"""Calendar days from the first to the last day: no more than two partitions are read."""
MOST_CELLS = 20_000


class NoFeatureVersionError(StoreError, LookupError):
    """No features of this version are stored."""

    kind = ErrorKind.CONFIGURATION


@dataclass(frozen=True)
class FeatureQuery:
    """Which features are wanted; both days are included.

    Attributes
    ----------
    columns
        Empty: all of the version's.
    """

    feature_version: str
    instruments: tuple[str, ...]
    first: date
    last: date
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureRow:
    """An instrument's features on a day, in the order of the columns; None where a feature has no value."""

    date: date
    instrument: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class FeaturesFound:
    """Rows in the order of days and instruments."""

    feature_version: str
    columns: Sequence[str]
    rows: Sequence[FeatureRow]


def query_features(settings: Settings, wanted: FeatureQuery) -> FeaturesFound:
    """The features that are stored of some instruments. One without a bar on a day has no row.

    Raises
    ------
    NoFeatureVersionError
        There is no such version.
    ConfigError
        A column is unknown, the last day is before the first, or more is asked for than `MOST_DAYS` and `MOST_CELLS`.
    StoreError, DamagedFileError
        As `FeatureStore.load`.
    """
    store = FeatureStore(settings)
    try:
        known = store.get(wanted.feature_version).names
    except StoreError:
        told = f"no features of version {wanted.feature_version!r} are stored; `features list` shows what is"
        raise NoFeatureVersionError(told) from None
    columns = wanted.columns or known
    _check(wanted, columns, known)
    frame = store.load(
        wanted.feature_version, wanted.first, wanted.last, columns=columns, instruments=list(wanted.instruments)
    )
    rows = [
        FeatureRow(day.date(), str(name), [finite_or_none(value) for value in values])
        for (day, name), values in zip(frame.index, frame.to_numpy().tolist(), strict=True)
    ]
    return FeaturesFound(wanted.feature_version, columns, rows)


def _check(wanted: FeatureQuery, columns: Sequence[str], known: Sequence[str]) -> None:
    unknown = sorted(set(columns) - set(known))
    if unknown:
        raise ConfigError(f"columns: version {wanted.feature_version} has no {first_few(unknown)}")
    days = (wanted.last - wanted.first).days + 1
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"last: ask for 1 to {MOST_DAYS} days, from the first on; these are {days}")
    cells = days * len(wanted.instruments) * len(columns)
    if cells > MOST_CELLS:
        raise ConfigError(
            f"{days} days x {len(wanted.instruments)} instruments x {len(columns)} columns are {cells:,} values; ask "
            f"for at most {MOST_CELLS:,}, or read the store in Python: FeatureStore.load"
        )
