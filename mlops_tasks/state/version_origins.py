"""What registered versions were made of, searched by raw file, vintage, factor, code or lock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, insert, or_, select

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import lock_table
from mlops_tasks.state.tables import FactorInput, VersionOrigin, VintageInput

OWN, EVERY = "", "*"
"""Whose field a factor reads: the row's own instrument's, that of all instruments."""
WHOLE = -1
"""In place of a number of rows: back to the first one."""


@dataclass(frozen=True)
class OriginSearch:
    """What is searched for: all conditions hold. None: no condition."""

    file: str | None = None
    """SHA-256 of a raw file, or its name or the end of it."""
    data_version: str | None = None
    factor: str | None = None
    """Name of a column of the feature set."""
    definition: str | None = None
    code: str | None = None
    """Commit, or how it begins."""
    lock: str | None = None
    """SHA-256 of requirements.txt, or how it begins."""


def record_origin(
    settings: Settings, origin: VersionOrigin, files: Sequence[VintageInput], inputs: Sequence[FactorInput]
) -> None:
    """Record what a version was made of, in place of what was recorded; vintages and definitions are recorded once."""
    with session(settings) as active:
        lock_table(active, VersionOrigin.__tablename__)
        active.execute(delete(VersionOrigin).where(VersionOrigin.version == origin.version))
        active.add(origin)
        known = select(VintageInput.sha256).where(VintageInput.data_version == origin.data_version).limit(1)
        if files and active.scalar(known) is None:
            active.execute(insert(VintageInput), [_values(each) for each in {f.sha256: f for f in files}.values()])
        defined = select(FactorInput.factor).where(FactorInput.definition == origin.definition).limit(1)
        if inputs and active.scalar(defined) is None:
            active.execute(insert(FactorInput), [_values(each) for each in inputs])


def versions_with_origin(settings: Settings) -> frozenset[int]:
    """The versions whose origin is recorded."""
    with reading(settings) as active:
        return frozenset(active.scalars(select(VersionOrigin.version)))


def find_origins(settings: Settings, wanted: OriginSearch) -> list[VersionOrigin]:
    """The versions that meet all conditions, ascending.

    Raises
    ------
    ConfigError
        A condition has a NUL character.
    """
    if any("\0" in each for each in vars(wanted).values() if each is not None):
        raise ConfigError("a condition has a NUL character; leave it out")
    query = select(VersionOrigin).where(*_conditions(wanted)).order_by(VersionOrigin.version)
    with reading(settings) as active:
        return list(active.scalars(query))


def origin_of(settings: Settings, version: int) -> VersionOrigin | None:
    """What a version was made of; None: it is not recorded."""
    with reading(settings) as active:
        return active.get(VersionOrigin, version)


def files_of(settings: Settings, data_version: str, limit: int) -> list[VintageInput]:
    """The first raw files, or answers of a database or vendor, that a vintage was made from, by name."""
    query = select(VintageInput).where(VintageInput.data_version == data_version).order_by(VintageInput.name)
    with reading(settings) as active:
        return list(active.scalars(query.limit(limit)))


def factors_of(settings: Settings, definition: str) -> list[str]:
    """Names of the factors of a feature set's definition; none where it is not recorded."""
    query = select(FactorInput.factor).where(FactorInput.definition == definition).distinct()
    with reading(settings) as active:
        return list(active.scalars(query.order_by(FactorInput.factor)))


def inputs_of(settings: Settings, definitions: Iterable[str]) -> dict[str, list[FactorInput]]:
    """By definition, what its factors read."""
    wanted = sorted(set(definitions))
    found: dict[str, list[FactorInput]] = {each: [] for each in wanted}
    with reading(settings) as active:
        for row in active.scalars(select(FactorInput).where(FactorInput.definition.in_(wanted))):
            found[row.definition].append(row)
    return found


def _conditions(wanted: OriginSearch) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.file is not None:
        is_it = or_(VintageInput.sha256 == wanted.file, VintageInput.name.endswith(wanted.file, autoescape=True))
        found.append(VersionOrigin.data_version.in_(select(VintageInput.data_version).where(is_it)))
    if wanted.data_version is not None:
        found.append(VersionOrigin.data_version == wanted.data_version)
    if wanted.factor is not None:
        has_it = select(FactorInput.definition).where(FactorInput.factor == wanted.factor)
        found.append(VersionOrigin.definition.in_(has_it))
    if wanted.definition is not None:
        found.append(VersionOrigin.definition == wanted.definition)
    if wanted.code is not None:
        found.append(VersionOrigin.code.startswith(wanted.code, autoescape=True))
    if wanted.lock is not None:
        found.append(VersionOrigin.lock.startswith(wanted.lock, autoescape=True))
    return found


def _values(row: VintageInput | FactorInput) -> dict[str, object]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
