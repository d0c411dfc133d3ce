"""From a source's name to its bars."""

from collections.abc import Sequence

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.config import SYNTHETIC, PostgresqlSource, Settings, TableSource, VendorSource
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.base import BarSource
from mlops_tasks.data.sources.membership import read_universe
from mlops_tasks.data.sources.parsed import ParsedBars


def open_source(settings: Settings, source: str, members: Sequence[str] = ()) -> BarSource:
    """The source of that name: `synthetic`, one of `data.sources`, else a file or folder of that path.

    Nothing is read yet. What only one kind of source needs is imported here, for that kind. A vendor whose settings
    name no instruments is asked for `members`.

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
            asked = spec if spec.instruments else spec.model_copy(update={"instruments": tuple(members)})
            return _open_vendor(settings, source, asked)


def read_source(settings: Settings, source: str, universe: str | None) -> ParsedBars:
    """Read every row of `source` and the membership file, if one is given.

    Parameters
    ----------
    settings
        What `open_source` needs.
    source
        `synthetic`, a name of `data.sources`, or the path of a file or folder that the settings allow.
    universe
        Membership file that they allow, or None: every instrument. A vendor that was given no instruments is asked for
        its names.

    Raises
    ------
    SourceNotFoundError, SourceError, ConfigError
        Names what was read, the column or line, the rule and the remedy.
    """
    spells = None if universe is None else read_universe(AllowedFiles.of(settings), universe)
    members = () if spells is None else spells[INSTRUMENT].unique().tolist()
    parsed = open_source(settings, source, members).read()
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
