"""The command line for registered versions: `alphaops models search`, `tag` and `index`."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.cli.given import day, version_number
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.states import ModelState

if TYPE_CHECKING:
    from mlops_tasks.state.model_index import FoundVersion
    from mlops_tasks.state.version_search import VersionPage, VersionSearch


def add_version_verbs(own: Any, shared: argparse.ArgumentParser) -> None:
    """Add the actions to the verb `models`; `shared` has the options that all verbs take."""
    said = "search the registered versions; all conditions hold"
    search = own.add_parser("search", parents=[shared], help=said)
    search.add_argument("text", nargs="*", help="words in the description, the keys or the tags")
    search.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    search.add_argument("--family", help="lightgbm, linear, ...")
    search.add_argument("--state", choices=[*ModelState], help="present state")
    search.add_argument("--data-version", help="vintage that it was trained on")
    said = "a metric between two numbers, either of which may be left out; may be repeated"
    search.add_argument("--metric", action="append", default=[], metavar="NAME=LOW:HIGH", help=said)
    search.add_argument("--since", type=day, help="first day (UTC) of the registration")
    search.add_argument("--until", type=day, help="last day (UTC) of the registration")
    said = "version, registered_at, family, state, data_version, or metric.NAME (version)"
    search.add_argument("--sort", default="version", help=said)
    search.add_argument("--ascending", action="store_true", help="default: the largest or newest first")
    search.add_argument("--page", type=int, default=1)
    search.add_argument("--size", type=int, default=20, help="versions per page (20)")
    search.set_defaults(verb_function=_search)

    said = "give a version tags; MLflow has them as user.NAME"
    tag = own.add_parser("tag", parents=[shared], help=said)
    tag.add_argument("version", type=version_number)
    tag.add_argument("tags", nargs="+", metavar="NAME=VALUE", help="NAME= takes a tag away")
    tag.set_defaults(verb_function=_tag)

    index = own.add_parser("index", parents=[shared], help="make the index that is searched anew, from MLflow")
    index.set_defaults(verb_function=_index)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"{option} {excerpt(text)}: write it as {form}")
    return name, value


def _wanted(arguments: argparse.Namespace) -> "VersionSearch":
    from mlops_tasks.state.version_search import VersionSearch, metric_range

    ranges = [_pair(each, "--metric", "NAME=LOW:HIGH") for each in arguments.metric]
    return VersionSearch(
        text=" ".join(arguments.text),
        tags=dict(_pair(each, "--tag", "NAME=VALUE") for each in arguments.tag),
        family=arguments.family,
        state=None if arguments.state is None else ModelState(arguments.state),
        data_version=arguments.data_version,
        metrics=tuple(metric_range(name, bounds) for name, bounds in ranges),
        since=arguments.since,
        until=arguments.until,
        sort=arguments.sort,
        ascending=arguments.ascending,
        page=arguments.page,
        size=arguments.size,
    )


def _search(arguments: argparse.Namespace) -> int:
    from mlops_tasks.registry.model_index import search_models

    found = search_models(load_settings(), _wanted(arguments))
    info = {"total": found.total, "versions": [_row(each) for each in found.versions]}
    return tell(arguments, info, lambda: _lines(found, arguments))


def _row(found: "FoundVersion") -> dict[str, Any]:
    at, metrics, tags = found.registered_at.isoformat(), dict(found.metrics), dict(found.tags)
    return {**vars(found), "registered_at": at, "metrics": metrics, "tags": tags}


def _lines(found: "VersionPage", arguments: argparse.Namespace) -> Iterator[str]:
    if not found.versions:
        yield f"no version on page {arguments.page}, of {found.total} that meet the conditions"
        return
    shown = [name for name, _ in (_pair(each, "", "") for each in arguments.metric)]
    if arguments.sort.startswith("metric."):
        shown.append(arguments.sort.removeprefix("metric."))
    for each in found.versions:
        yield _line(each, shown)
    first = (arguments.page - 1) * arguments.size
    yield f"{first + 1} to {first + len(found.versions)} of {found.total}"


def _line(found: "FoundVersion", metrics: Sequence[str]) -> str:
    numbers = [f"{name} {found.metrics[name]:.4g}" for name in dict.fromkeys(metrics) if name in found.metrics]
    own = [f"{name}={value}" for name, value in found.tags.items() if name.startswith("user.")]
    what = (
        f"{found.version:>6}  {found.state:<11}{found.family:<14}{found.registered_at:%Y-%m-%d}  {found.training_key}"
    )
    return "  ".join([what, *numbers, *own])


def _tag(arguments: argparse.Namespace) -> int:
    from mlops_tasks.registry.model_index import tag_model

    given = dict(_pair(each, "tag", "NAME=VALUE") for each in arguments.tags)
    found = tag_model(load_settings(), arguments.version, given)
    assert found is not None
    return tell(arguments, _row(found), _line(found, ()))


def _index(arguments: argparse.Namespace) -> int:
    from mlops_tasks.registry.model_index import index_models

    count = index_models(load_settings(), anew=True)
    return tell(arguments, {"versions": count}, f"{count} versions are indexed")
