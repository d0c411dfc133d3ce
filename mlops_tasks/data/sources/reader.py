"""From a source's name to its bars."""

import logging
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.config import SYNTHETIC, PostgresqlSource, Settings, TableSource, VendorSource
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.base import BarSource
from mlops_tasks.data.sources.membership import read_universe
from mlops_tasks.data.sources.parsed import ParsedBars
from mlops_tasks.errors import SourceError, excerpt, first_few

log = logging.getLogger(__name__)

_NAMED = 20
"""Number of unknown members that a message lists."""


def open_source(settings: Settings, source: str, members: Sequence[str] = ()) -> BarSource:
    """The source of that name: `synthetic`, one of `data.sources`, else a file or folder of that path.

    Nothing is read yet. Whatever only one kind of source needs is imported here, for that kind. From a vendor whose
    settings name no instruments, `members` are requested.

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
        Names what was read, the column or line, the rule and the remedy; or no member has bars.
    """
    form = settings.data.universe_date_format
    spells = None if universe is None else read_universe(AllowedFiles.of(settings), universe, form)
    members = () if spells is None else spells[INSTRUMENT].unique().tolist()
    parsed = open_source(settings, source, members).read()
    names = parsed.frame[INSTRUMENT].dropna().unique().tolist()
    _tell_cut_digits(source, names)
    if spells is not None and parsed.frame[INSTRUMENT].isna().mean() <= settings.data.max_rejected_share:
        _check_members(str(universe), members, source, {*names, *parsed.failed})
    return ParsedBars(parsed.frame, parsed.source, spells, parsed.raw, parsed.failed)


def _tell_cut_digits(source: str, names: Sequence[str]) -> None:
    """Warn that names look like numbers that have lost their leading zeros: 000001 read as 1."""
    lengths = {len(name): name for name in names if name.isdigit()}
    if len(lengths) > 1:
        shortest, longest = lengths[min(lengths)], lengths[max(lengths)]
        log.warning(
            "%s: instruments are all digits and of unequal length, such as %s and %s: leading zeros are lost where the "
            "source keeps names as numbers; deliver them as text (%s)",
            *(source, shortest, longest, shortest.zfill(len(longest))),
        )


def _check_members(universe: str, members: Sequence[str], source: str, known: Collection[str]) -> None:
    """Compare the names of a membership file with those of the bars.

    Raises
    ------
    SourceError
        None of them is known.
    """
    unknown = [name for name in members if name not in known]
    if members and len(unknown) == len(members):
        nearest = max(known, key=lambda name: SequenceMatcher(None, name.lower(), unknown[0].lower()).ratio())
        raise SourceError(
            f"{universe}: rule members_known: none of its {len(members)} instruments has bars in {source}: "
            f"{excerpt(unknown[0])} is not there, the nearest name is {excerpt(nearest)}; write the names as "
            "the source has them, or correct data.universe (UNIVERSE)"
        )
    if unknown:
        log.warning(
            "%s: %s of %s instruments have no bars in %s: %s",
            *(universe, len(unknown), len(members), source, first_few(unknown, _NAMED)),
        )


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
