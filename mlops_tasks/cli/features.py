"""The command line for the feature store: `alphaops features ...`."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import Settings, load_settings

if TYPE_CHECKING:
    from mlops_tasks.features.catalogue import FeatureVersionInfo, VersionComparison
    from mlops_tasks.features.garbage import Collected

_SHOWN = 20
"""Number of columns listed in a comparison."""


def add_features_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `features` with its own verbs; `shared` has the options that all of them take."""
    features = verbs.add_parser("features", help="compute, list, compare and remove stored features")
    own = features.add_subparsers(required=True, metavar="action", dest="action")

    computed = own.add_parser("compute", parents=[shared], help="compute and store the features of a vintage")
    computed.add_argument("--set", dest="feature_set", help="default: the setting features.feature_set")
    computed.add_argument("--data-version", help="default: the vintage in use")
    computed.set_defaults(verb_function=_compute)

    listed = own.add_parser("list", parents=[shared], help="stored versions, oldest first")
    listed.add_argument("--set", dest="feature_set", help="only versions of this set")
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser("show", parents=[shared], help="one version: its definition, extent and column statistics")
    shown.add_argument("version")
    shown.set_defaults(verb_function=_show)

    compared = own.add_parser("compare", parents=[shared], help="the differences between two versions")
    compared.add_argument("old")
    compared.add_argument("new")
    compared.set_defaults(verb_function=_compare)

    deleted = own.add_parser("delete", parents=[shared], help="remove a version that no registered model needs")
    deleted.add_argument("version")
    deleted.set_defaults(verb_function=_delete)

    collected = own.add_parser("collect-garbage", parents=[shared], help="remove all versions that nothing needs")
    collected.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    collected.set_defaults(verb_function=_collect)


def _compute(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.vintages import current_vintage, load_vintage
    from mlops_tasks.features.store import FeatureStore

    settings = load_settings()
    given = arguments.data_version
    vintage = load_vintage(settings, given) if given else current_vintage(settings)

    def say(index: Any) -> None:
        if not arguments.json:
            print(f"{index[0][0].year}: computed {len(index):,} rows", flush=True)

    name = arguments.feature_set or settings.features.feature_set
    version = FeatureStore(settings).compute(vintage, name, on_computed=say)
    info = {
        "feature_version": version.feature_version,
        "feature_set": version.feature_set,
        "data_version": vintage.data_version,
        "rows": version.rows,
        "computed_rows": version.computed_rows,
    }
    said = (
        f"{version.feature_version}: {version.rows:,} rows of {version.feature_set} over {vintage.data_version}, "
        f"{version.computed_rows:,} of them computed now"
    )
    return tell(arguments, info, said)


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.vintages import current_version
    from mlops_tasks.features.catalogue import FeatureCatalogue

    settings = load_settings()
    found, in_use = FeatureCatalogue(settings).versions(arguments.feature_set), current_version(settings)
    info = [each.to_json() | {"in_use": in_use in each.data_versions} for each in found]
    return tell(arguments, info, _render_list(found, in_use))


def _show(arguments: argparse.Namespace) -> int:
    from mlops_tasks.features.catalogue import FeatureCatalogue

    info = FeatureCatalogue(load_settings()).info(arguments.version)
    return tell(arguments, info.to_json(), "\n".join(_lines_of_version(info)))


def _compare(arguments: argparse.Namespace) -> int:
    from mlops_tasks.features.catalogue import FeatureCatalogue

    found = FeatureCatalogue(load_settings()).compare(arguments.old, arguments.new)
    return tell(arguments, found.to_json(), "\n".join(_lines_of_comparison(found)))


def _delete(arguments: argparse.Namespace) -> int:
    from mlops_tasks.features.catalogue import FeatureCatalogue

    settings = load_settings()
    done = FeatureCatalogue(settings).delete(arguments.version, _needed(settings))
    return tell(arguments, done, f"{done['feature_version']} is removed, {done['removed_files']} files")


def _collect(arguments: argparse.Namespace) -> int:
    from mlops_tasks.features.garbage import collect_garbage

    settings = load_settings()
    done = collect_garbage(settings, _needed(settings), dry_run=arguments.dry_run)
    return tell(arguments, done.to_json(), "\n".join(_lines_of_collection(done)))


def _needed(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    from mlops_tasks.registry.features_in_use import needed_feature_versions

    return needed_feature_versions(settings)


def _render_list(versions: Sequence["FeatureVersionInfo"], in_use: str | None) -> str:
    if not versions:
        return "no features are stored; run `alphaops features compute`, or daily_retraining in Airflow"
    width = max(len(each.feature_set) for each in versions)
    return "\n".join(
        f"{each.feature_version}  {each.feature_set:<{width}}  {'in use' if in_use in each.data_versions else '':<6}  "
        f"{(each.created or '')[:16]:<16}  {each.rows:>11,} rows x {len(each.names):>4}  "
        f"{each.first_date or ''} to {each.last_date or ''}  {', '.join(each.data_versions)}"
        for each in versions
    )


def _lines_of_version(info: "FeatureVersionInfo") -> Iterator[str]:
    yield f"set         {info.feature_set}, version {info.set_version} of {info.owner}: {info.description}"
    yield f"definition  {info.definition}"
    yield f"reads       {', '.join(info.inputs)}; {_reach(info.window)}"
    yield (
        f"extent      {info.rows:,} rows of {info.instruments} instruments, {info.first_date} to {info.last_date}, "
        f"in {len(info.partitions)} partitions"
    )
    yield f"made        {info.created} from {info.data_version}; features of {', '.join(info.data_versions) or 'none'}"
    if info.statistics is None:
        return
    width = max(len(name) for name in info.names)
    yield ""
    yield f"{'column':<{width}}  missing         mean          std          min          max  expression"
    for name in info.names:
        each = info.statistics[name]
        numbers = "".join(f" {value:>12.5g}" for value in (each.mean, each.std, each.min, each.max))
        share = each.missing / each.rows if each.rows else 0.0
        yield f"{name:<{width}}  {share:>7.2%}{numbers}  {info.expressions.get(name, '')}".rstrip()


def _reach(window: int | None) -> str:
    return "every row since the instrument's first" if window is None else f"{window} rows before the current one"


def _lines_of_comparison(found: "VersionComparison") -> Iterator[str]:
    yield f"rows        {found.common_rows:,} common, {found.rows_added:,} added, {found.rows_removed:,} removed"
    if found.equal_years:
        yield f"equal       {', '.join(map(str, found.equal_years))}"
    for name, (old, new) in found.changed_definition.items():
        yield f"{name:<12}{old} > {new}"
    for title, names in (("added", found.added), ("removed", found.removed)):
        if names:
            yield f"{title:<12}{', '.join(names)}"
    for name, (old, new) in found.redefined.items():
        yield f"redefined   {name}: {old} > {new}"
    if not found.differences:
        yield "values      equal in all common rows and columns"
        return
    ranked = sorted(found.differences.items(), key=lambda item: -sum(each.values for each in item[1]))
    width = max(len(name) for name, _ in ranked)
    yield f"values      {len(ranked)} columns differ; those with the most differing values:"
    for name, years in ranked[:_SHOWN]:
        first, last = min(each.first_date for each in years), max(each.last_date for each in years)
        count, gone, came = (sum(getattr(each, kind) for each in years) for kind in ("values", "vanished", "appeared"))
        largest = max((each.largest for each in years if isfinite(each.largest)), default=0.0)
        nan = f", {gone:,} are NaN now, {came:,} were" if gone or came else ""
        yield f"  {name:<{width}} {count:>10,} values, {first} to {last}, by {largest:.3g} at most{nan}"


def _lines_of_collection(done: "Collected") -> Iterator[str]:
    for name in done.removed:
        yield f"{name}  {'would be removed' if done.dry_run else 'removed'}"
    for name, reason in done.kept.items():
        yield f"{name}  stays: {reason}"
    yield f"{done.files} files, {done.bytes_freed:,} bytes {'would be freed' if done.dry_run else 'freed'}"
