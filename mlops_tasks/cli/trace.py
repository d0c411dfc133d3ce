"""The command line from a score to its raw rows, and between versions and what they were made of."""

import argparse
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError, first_few

if TYPE_CHECKING:
    from mlops_tasks.provenance.bars import TracedBars
    from mlops_tasks.provenance.trace import Trace
    from mlops_tasks.registry.bar_use import UsesFound
    from mlops_tasks.registry.lineage import Lineage
    from mlops_tasks.state.tables import VersionOrigin

FAILED = 1
_SEARCHED = ("file", "data_version", "factor", "definition", "code", "lock")


def add_lineage_verbs(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verbs `trace` and `lineage`; `shared` has the options that all verbs take."""
    said = "from one score of one instrument on one day back to the raw rows, verified (docs/lineage.md)"
    traced = verbs.add_parser("trace", parents=[shared], help=said)
    traced.add_argument("instrument")
    traced.add_argument("day", type=date.fromisoformat)
    traced.add_argument("--version", type=int, help="default: the champion, else whichever answered")
    traced.add_argument("--rows", type=int, default=10, help="bars and features that are printed (10); --json has all")
    traced.set_defaults(verb_function=_trace)

    said = "what a version was made of; or which versions were made of something: all conditions hold"
    lineage = verbs.add_parser("lineage", parents=[shared], help=said)
    lineage.add_argument("version", type=int, nargs="?")
    lineage.add_argument("--file", help="raw file: its SHA-256, or the end of its path")
    lineage.add_argument("--data-version", help="vintage that they were trained on")
    lineage.add_argument("--factor", help="column of their feature set")
    lineage.add_argument("--definition", help="digest of their feature set's definition")
    lineage.add_argument("--code", help="commit, or how it begins")
    lineage.add_argument("--lock", help="SHA-256 of requirements.txt, or how it begins")
    lineage.add_argument("--bar", metavar="INSTRUMENT", help="that used bars of this instrument; with --from")
    lineage.add_argument("--from", dest="first", type=date.fromisoformat, help="first day of the bars")
    lineage.add_argument("--to", dest="last", type=date.fromisoformat, help="last day of the bars; default: the first")
    lineage.add_argument("--field", help="open, high, low, close, volume, vwap or factor; default: any")
    lineage.set_defaults(verb_function=_lineage)

    said = "whether a version can serve as it was trained: packages, lock, features, its training's scores"
    compatible = verbs.add_parser("compatibility", parents=[shared], help=said)
    compatible.add_argument("version", type=int)
    compatible.set_defaults(verb_function=_compatibility)


def _compatibility(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.compatible import compatibility_with_service

    found, whose = compatibility_with_service(load_settings(), arguments.version)
    lines = [f"version {found.version} against {whose}"]
    lines += [f"{each.judgement:<9}{each.text}" for each in found.findings]
    return tell(arguments, found.to_json() | {"against": whose}, lines, FAILED if found.refusals else 0)


def _trace(arguments: argparse.Namespace) -> int:
    from mlops_tasks.provenance.trace import trace

    found = trace(load_settings(), arguments.instrument, arguments.day, arguments.version)
    return tell(arguments, found.to_json, lambda: _traced(found, arguments.rows), 0 if found.verified else FAILED)


def _traced(found: "Trace", rows: int) -> Iterator[str]:
    score, service = found.score, found.service
    yield f"{score.instrument} on {score.date}: score {score.score!r} by version {score.version}"
    where = f"published in {score.file} as {score.alias}" if score.file else f"answered as request {score.request_id}"
    yield f"score       {where}, {_at(score.made_at)}"
    yield f"version     {score.version} in slot {score.slot or 'not known'}, {_service(service)}"
    yield from [] if found.lineage is None else _version(found.lineage)
    if found.features is not None:
        features = found.features
        definition = features.definition.digest
        yield f"features    {features.feature_version} of {features.feature_set}, definition {definition}"
        shown = [f"{name} {_number(value)}" for name, value in features.values.items()]
        yield f"            {first_few(shown, rows)}"
    if found.vintage is not None:
        manifest = found.vintage.manifest
        yield (
            f"vintage     {found.vintage.data_version}: {found.vintage.rows:,} bars, {found.vintage.first_date} to "
            f"{found.vintage.last_date}, {manifest.get('quarantined')} rows in quarantine, of {manifest.get('source')}"
        )
        for raw in manifest.get("raw", [])[:rows]:
            yield f"raw         {raw['name']}: {raw['rows']:,} rows, SHA-256 {raw['sha256']}"
    yield from [] if found.bars is None else _bars(found.bars, rows)
    for each in found.evidence:
        yield f"{'verified' if each.verified else 'NOT VERIFIED':<13}{each.subject}: {each.said}"


def _service(service: Any) -> str:
    if service.state is None:
        return "its state then is not known"
    until = "" if service.until is None else f" until {_at(service.until)}"
    reason = f": {service.reason}" if service.reason else ""
    return f"{service.state} since {_at(service.since)}{until}, by {service.by}{reason}"


def _version(lineage: "Lineage") -> Iterator[str]:
    """The steps from a version back to its vintage."""
    dag_run = "no DAG" if lineage.dag_run is None else f"{lineage.dag_run.dag_id} {lineage.dag_run.run_id}"
    yield f"DAG run     {dag_run}"
    segments = "; ".join(f"{name} {first} to {last}" for name, (first, last) in lineage.segments.items())
    yield f"training    {lineage.training_key}: {lineage.model}, seed {lineage.seed}, {segments}"
    yield f"            run {lineage.training_run or 'not recorded'}, MLflow's run {lineage.run_id}"
    yield f"            label {lineage.label}"
    yield f"            configuration {_flat(lineage.configuration)}"
    yield f"            studies: {', '.join(lineage.studies) or 'none'}"
    code, environment = lineage.code, lineage.environment
    changes = "" if code is None or not code.dirty else f", with changes {code.changes} that no commit has"
    yield f"code        {'not recorded' if code is None else f'{code.version}, commit {code.commit}'}{changes}"
    if environment is not None:
        packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
        yield f"lock        {environment.lock or 'none'}; Python {environment.python}; {packages}"
    certificate, gate = lineage.certificate, lineage.gate
    if certificate is not None:
        yield f"certificate {certificate.key} {'passed' if certificate.passed else 'failed'}"
    if gate is not None:
        yield f"gate        {gate.decision} by rule {gate.rule}, {_at(gate.at)}: {'; '.join(gate.reasons)}"
    yield f"trained on  features {lineage.feature_version} of {lineage.feature_set}, vintage {lineage.data_version}"


def _bars(bars: "TracedBars", rows: int) -> Iterator[str]:
    yield f"bars        {len(bars.bars)} from {bars.first} to {bars.last}"
    for bar in bars.bars[-rows:]:
        place = "" if bar.source_row is None else f"  {bar.source_file}, row {bar.source_row}"
        values = " ".join(f"{name} {_number(value)}" for name, value in bar.values.items())
        yield f"            {bar.date} {values}{place}"
    if bars.also_read:
        others = ", ".join(bars.also_read).replace("*", "all members of the universe")
        yield f"also read   bars of {others}"
    for each in bars.revisions:
        yield (
            f"revision    {each.date} {each.field} {_number(each.old)} to {_number(each.new)} ({each.kind}), "
            f"{each.old_version} to {each.new_version}"
        )
    for kept in bars.kept:
        yield f"rule        {kept.rule} ({kept.severity}) on {kept.date}: {kept.reason}"
    for released in bars.released:
        yield f"released    {released}"


def _flat(configuration: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(configuration.items()))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _lineage(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.version_origins import OriginSearch

    settings = load_settings()
    wanted = OriginSearch(**{name: getattr(arguments, name) for name in _SEARCHED})
    searched = arguments.bar is not None or wanted != OriginSearch()
    if (arguments.version is None) == (not searched):
        raise ConfigError("give either a version, or what versions were made of: --file, --factor, --bar, ...")
    if arguments.version is not None:
        from mlops_tasks.registry.lineage import LineageTracker

        lineage = LineageTracker(settings).trace(arguments.version)
        return tell(arguments, lineage.to_json, lambda: _upwards(lineage))
    from mlops_tasks.registry.origins import record_missing, search_origins

    if arguments.bar is None:
        found = search_origins(settings, wanted)
        return tell(arguments, [_row(each) for each in found], [_line(each) for each in found] or ["no version"])
    from mlops_tasks.registry.bar_use import Bars, described, uses_of_bars

    if arguments.first is None:
        raise ConfigError("--bar needs --from: the first day of the bars; --to, the last, is the same by default")
    record_missing(settings)
    bars = Bars(arguments.bar, arguments.first, arguments.last or arguments.first, arguments.field)
    uses = uses_of_bars(settings, bars, wanted)
    return tell(arguments, lambda: _uses(uses), lambda: list(described(uses)) or ["no version used them"])


def _upwards(lineage: "Lineage") -> Iterator[str]:
    yield f"version {lineage.version}, artefact {lineage.digest}"
    yield from _version(lineage)
    yield f"            {len(lineage.feature_names)} features, definition {lineage.definition}"
    yield f"source      {lineage.source}"
    for raw in lineage.raw:
        yield f"raw         {raw['name']}: {raw['rows']:,} rows, SHA-256 {raw['sha256']}"


def _uses(found: "UsesFound") -> dict[str, Any]:
    return {"uses": [each.to_json() for each in found.uses], "unknown": {str(k): v for k, v in found.unknown.items()}}


def _row(found: "VersionOrigin") -> dict[str, Any]:
    return {column.name: getattr(found, column.name) for column in found.__table__.columns}


def _line(found: "VersionOrigin") -> str:
    dirty = " with changes" if found.dirty else ""
    return (
        f"version {found.version}  training {found.training_key}  vintage {found.data_version}  definition "
        f"{found.definition or 'not recorded'}  commit {found.code[:12] or 'not recorded'}{dirty}"
    )
