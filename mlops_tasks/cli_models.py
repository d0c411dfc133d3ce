"""The command line of the model zoo: `python -m mlops_tasks models ...`."""

import argparse
import json
from typing import Any

from mlops_tasks.config import load_settings


def add_models_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `models` with its own verbs; `shared` has the options that all of them take."""
    models = verbs.add_parser("models", help="list and show the model zoo, and measure it in one table")
    own = models.add_subparsers(required=True, metavar="action", dest="action")

    listed = own.add_parser("list", parents=[shared], help="what can be trained")
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser(
        "show", parents=[shared], help="one model: what it is, when to take it, its hyper-parameters"
    )
    shown.add_argument("model")
    shown.set_defaults(verb_function=_show)

    table = own.add_parser("table", parents=[shared], help="train models with several seeds, and measure them")
    table.add_argument("--models", help="names, with commas between them; none: the whole zoo")
    table.add_argument("--seeds", type=int, default=3, help="trainings of each model, from training.seed on")
    table.add_argument("--peers", action="store_true", help="train Qlib's own classes on the same data too")
    table.set_defaults(verb_function=_table)


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.training.model_zoo.catalogue import model_zoo

    zoo = model_zoo()
    if arguments.json:
        print(json.dumps({name: entry.model_dump(mode="json") for name, entry in zoo.items()}, sort_keys=True))
    else:
        for name, entry in zoo.items():
            print(f"{name:<16}{entry.description}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from mlops_tasks.training.model_zoo.catalogue import zoo_entry

    entry = zoo_entry(arguments.model)
    if arguments.json:
        print(json.dumps(entry.model_dump(mode="json") | {"json_schema": entry.json_schema()}, sort_keys=True))
        return 0
    print(f"{arguments.model}: {entry.description}")
    for scenario in entry.recommended_for:
        print(f"  - {scenario}")
    for name, schema in entry.hyperparameters.items():
        about = {key: value for key, value in schema.items() if key not in ("default", "description")}
        print(f"  {name} = {schema['default']!r}  {schema.get('description', '')}  {json.dumps(about)}")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.model_table import MARKDOWN, TABLE, TableRequest, make_model_table
    from mlops_tasks.files import read_json
    from mlops_tasks.training.model_zoo.catalogue import model_zoo

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    models = tuple(arguments.models.split(",") if arguments.models else model_zoo())
    folder = make_model_table(load_settings(), TableRequest(models, arguments.seeds, arguments.peers), say)
    if arguments.json:
        print(json.dumps(read_json(folder / TABLE) | {"path": str(folder)}, sort_keys=True))
    else:
        print(f"\n{(folder / MARKDOWN).read_text()}\n{folder}")
    return 0
