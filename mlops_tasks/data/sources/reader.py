"""From a source's name to its bars."""

from pathlib import Path

from mlops_tasks.config import PostgresqlSource, Settings, TableSource, VendorSource
from mlops_tasks.data.sources.base import BarSource
from mlops_tasks.data.sources.membership import read_membership
from mlops_tasks.data.sources.parsed import ParsedBars

SYNTHETIC = "synthetic"


def open_source(settings: Settings, source: str) -> BarSource:
    """The source of that name: `synthetic`, one of `data.sources`, else a file or folder of that path.

    Nothing is read yet. What only one kind of source needs is imported here, for that kind.

    Raises
    ------
    ConfigError, SourceError
        The source's settings are wrong, or a package that it needs is not installed.
    """
    if source == SYNTHETIC:
        from mlops_tasks.data.sources.synthetic import SyntheticSource

        return SyntheticSource(settings.synthetic)
    spec = settings.data.sources.get(source) or TableSource(kind="table", path=source)
    match spec:
        case TableSource():
            from mlops_tasks.data.sources.files import FileSource

            return FileSource(settings, source, spec)
        case PostgresqlSource():
            from mlops_tasks.data.sources.postgresql import DatabaseSource

            return DatabaseSource(settings, source, spec)
        case VendorSource():
            return _open_vendor(settings, source, spec)


def read_source(settings: Settings, source: str, universe: str | None) -> ParsedBars:
    """Read every row of `source` and the membership file, if one is given.

    Parameters
    ----------
    settings
        What `open_source` needs.
    source
        `synthetic`, a name of `data.sources`, or the path of a file or folder.
    universe
        Membership file, or None: every instrument. A vendor that was given no instruments is asked for its names.

    Raises
    ------
    SourceNotFoundError, SourceError, ConfigError
        Names what was read, the column or line, the rule and the remedy.
    """
    data = settings.data.model_copy(update={"universe": universe})
    spells = None if universe is None else read_membership(Path(universe).expanduser())
    parsed = open_source(settings.model_copy(update={"data": data}), source).read()
    return ParsedBars(parsed.frame, parsed.source, spells, parsed.raw, parsed.failed)


def _open_vendor(settings: Settings, source: str, spec: VendorSource) -> BarSource:
    match spec.kind:
        case "yahoo":
            from mlops_tasks.data.sources.yahoo import YahooSource

            return YahooSource(settings, source, spec)
        case "akshare":
            from mlops_tasks.data.sources.akshare import AkshareSource

            return AkshareSource(settings, source, spec)
        case "baostock":
            from mlops_tasks.data.sources.baostock import BaostockSource

            return BaostockSource(settings, source, spec)
