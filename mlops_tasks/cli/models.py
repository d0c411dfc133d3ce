"""The command line for models: `alphaops models ...`, and the verbs that approve and deploy them."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_tasks.cli.answers import progress, tell
from mlops_tasks.cli.cross_validation import add_validate_verb
from mlops_tasks.cli.versions import add_version_verbs
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.states import Strategy


def add_models_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `models` with its own verbs; `shared` has the options that all of them take."""
    models = verbs.add_parser(
        "models", help="list and show the model zoo, measure it, and search the registered versions"
    )
    own = models.add_subparsers(required=True, metavar="action", dest="action")

    listed = own.add_parser("list", parents=[shared], help="the models that can be trained")
    _add_size(listed)
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser(
        "show", parents=[shared], help="one model: its description, when to use it, its hyper-parameters"
    )
    shown.add_argument("model")
    _add_size(shown)
    shown.set_defaults(verb_function=_show)

    table = own.add_parser("table", parents=[shared], help="train models with several seeds, and measure them")
    table.add_argument("--models", help="names, separated by commas; default: the whole zoo")
    table.add_argument("--seeds", type=int, default=3, help="trainings per model, with seeds from training.seed on")
    table.add_argument("--peers", action="store_true", help="also train Qlib's own classes on the same data")
    table.set_defaults(verb_function=_table)
    add_validate_verb(own, shared)
    add_version_verbs(own, shared)


def add_serving_verbs(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verbs `approve-model`, `withdraw-model`, `deploy`, `abort` and `advance`."""
    said = "allow a version to serve that the gate has not promoted"
    approve = verbs.add_parser("approve-model", parents=[shared], help=said)
    approve.add_argument("version", type=int)
    approve.add_argument("--reason", required=True, help="why it may; kept with your name")
    approve.set_defaults(verb_function=_approve_model)

    said = "forbid a version to serve; to withdraw the champion, use `rollback`"
    withdraw = verbs.add_parser("withdraw-model", parents=[shared], help=said)
    withdraw.add_argument("version", type=int)
    withdraw.add_argument("--reason", required=True, help="why it may not; kept with your name")
    withdraw.set_defaults(verb_function=_withdraw_model)

    deploy = verbs.add_parser("deploy", parents=[shared], help="make a version that may serve the champion")
    deploy.add_argument("version", type=int)
    said = "blue_green: unless a rollout is in progress; direct: abort a rollout; canary, shadow: begin one"
    deploy.add_argument("--strategy", choices=[*Strategy], default=Strategy.BLUE_GREEN, help=said)
    deploy.set_defaults(verb_function=_deploy)

    said = "end the rollout of a candidate: the champion answers everybody again"
    abort = verbs.add_parser("abort", parents=[shared], help=said)
    abort.add_argument("version", type=int, nargs="?", help="default: the one that has begun")
    abort.add_argument("--reason", required=True, help="why; kept with your name")
    abort.set_defaults(verb_function=_abort)

    said = "take the steps of rollouts that are due; the DAG monitor_champion does this regularly"
    advance = verbs.add_parser("advance", parents=[shared], help=said)
    advance.set_defaults(verb_function=_advance)


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="with --features: estimate the memory for training on this many rows")
    parser.add_argument("--features", type=int, help="columns")


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.modeling.model_zoo.description import describe_zoo

    found = describe_zoo(load_settings())
    for model in found:
        model["memory_bytes"] = None if model["error"] else _memory(arguments, model["name"])
    wrong = any(model["error"] for model in found)
    return tell(arguments, found, map(_line, found), 1 if wrong and not arguments.json else 0)


def _show(arguments: argparse.Namespace) -> int:
    from mlops_tasks.modeling.model_zoo.description import describe_model
    from mlops_tasks.modeling.model_zoo.zoo import zoo_entry

    model = describe_model(zoo_entry(arguments.model, load_settings()))
    model |= {"name": arguments.model, "memory_bytes": _memory(arguments, arguments.model)}
    return tell(arguments, model, _lines(model))


def _memory(arguments: argparse.Namespace, model: str) -> int | None:
    """Estimated peak in bytes; None if no size was given."""
    from mlops_tasks.modeling.model_zoo.description import memory_estimate

    if arguments.rows is None and arguments.features is None:
        return None
    if arguments.rows is None or arguments.features is None or min(arguments.rows, arguments.features) < 1:
        raise ConfigError("--rows and --features: give both, each at least 1")
    return memory_estimate(load_settings(), model, arguments.rows, arguments.features)


def _memory_text(model: Mapping[str, Any]) -> str:
    return "" if model["memory_bytes"] is None else f" Needs about {model['memory_bytes'] / 1e6:,.0f} MB."


def _line(model: Mapping[str, Any]) -> str:
    said = model["error"] or f"{model['description']}{_memory_text(model)}"
    return f"{model['name']:<16}{'(own) ' if model['own'] else ''}{said}"


def _lines(model: Mapping[str, Any]) -> Iterator[str]:
    from mlops_tasks.modeling.model_zoo.schema import allowed

    yield f"{model['name']}: {model['description']}{_memory_text(model)}"
    yield from (f"  - {scenario}" for scenario in model["recommended_for"])
    about = [f"family {model['family']}", *([model["class_path"]] if model["class_path"] else [])]
    about += [f"features {' '.join(model['feature_processors']) or 'as they are'}", f"label {model['label_processor']}"]
    yield f"  {', '.join(about)}"
    for advanced, title in ((False, "hyper-parameters"), (True, "advanced")):
        found = [each for each in model["hyperparameters"] if each["advanced"] is advanced]
        yield from [f"  {title}:"] if found else []
        for each in found:
            search = each["search"]
            ends = f" from {search['low']} to {search['high']}" if search and "low" in search else ""
            searched = f"; searched, {search['kind']}{ends}" if search else ""
            said = f"; {each['description']}" if each["description"] else ""
            yield f"    {each['name']} = {each['default']!r}: {allowed(each)}{searched}{said}"


def _table(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.model_table import MARKDOWN, TABLE, TableRequest, make_model_table
    from mlops_tasks.files import read_json
    from mlops_tasks.modeling.model_zoo.zoo import model_zoo

    models = tuple(arguments.models.split(",") if arguments.models else model_zoo(load_settings()))
    folder = make_model_table(
        load_settings(), TableRequest(models, arguments.seeds, arguments.peers), progress(arguments)
    )
    info = read_json(folder / TABLE) | {"path": str(folder)}
    return tell(arguments, info, f"\n{(folder / MARKDOWN).read_text()}\n{folder}")


def _approve_model(arguments: argparse.Namespace) -> int:
    from mlops_tasks.registry.approvals import approve_model

    row = approve_model(load_settings(), arguments.version, arguments.reason)
    names = ("training_key", "artefact_digest", "approved_by", "reason", "certificate")
    found = {"version": arguments.version, **{name: getattr(row, name) for name in names}}
    said = f"version {arguments.version} may serve; `deploy {arguments.version}` puts it in service"
    return tell(arguments, found, said)


def _withdraw_model(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.deployment import withdraw_model

    row = withdraw_model(load_settings(), arguments.version, arguments.reason)
    names = ("training_key", "artefact_digest", "revoked_by", "reason")
    found = {"version": arguments.version, **{name: getattr(row, name) for name in names}}
    said = f"version {arguments.version} may no longer serve, and the gate does not promote it again"
    return tell(arguments, found, said)


def _deploy(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.strategies import Wanted, deploy

    result = deploy(load_settings(), Wanted(arguments.version, Strategy(arguments.strategy)))
    said = f"version {arguments.version} serves" if result["deployed"] else result["reason"]
    return tell(arguments, result, said)


def _abort(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.rollout_plan import describe
    from mlops_tasks.serving.strategies import abort

    ended = abort(load_settings(), arguments.reason, arguments.version)
    found = {"version": ended.version, "strategy": ended.strategy, "state": ended.state, "reason": ended.reason}
    return tell(arguments, found, describe(ended))


def _advance(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.strategies import advance_rollouts

    found = advance_rollouts(load_settings())
    lines = [*found["steps"], *(f"under way: {each}" for each in found["under_way"])]
    return tell(arguments, found, lines or "no rollout is under way")
