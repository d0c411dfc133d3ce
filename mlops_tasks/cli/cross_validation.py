"""`alphaops models validate`: train and test a model of the zoo on many splits of the calendar."""

import argparse
from typing import Any

from mlops_tasks.cli.answers import progress, tell
from mlops_tasks.cli.json_input import json_object
from mlops_tasks.config import load_settings


def add_validate_verb(own: Any, shared: argparse.ArgumentParser) -> None:
    """Add `validate` to the verbs of `models`."""
    verb = own.add_parser("validate", parents=[shared], help="train and test a model on many purged splits of the days")
    verb.add_argument("model")
    verb.add_argument("--groups", type=int, help="blocks of days; each --test-groups of them are tested once")
    verb.add_argument("--test-groups", type=int)
    verb.add_argument("--walk-forward", action="store_true", help="train on the past only, and step through time")
    verb.add_argument("--train-days", type=int, help="walk-forward: days before the first test")
    verb.add_argument("--test-days", type=int, help="walk-forward: days of each step")
    verb.add_argument(
        "--rolling", action="store_true", help="walk-forward: train on the last --train-days, not on the whole past"
    )
    verb.add_argument("--valid-days", type=int, help="days for early stopping")
    verb.add_argument("--embargo-days", type=int, help="days left out before a test, beyond the span of the labels")
    verb.add_argument("--seeds", type=int, default=3, help="trainings per split, with seeds from training.seed on")
    verb.add_argument("--hyperparameters", help="overrides, as a JSON object")
    verb.set_defaults(verb_function=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.cross_validation import ValidationRequest, split_request, validate_model
    from mlops_tasks.experiments.cross_validation_report import MARKDOWN, REPORT
    from mlops_tasks.files import read_json

    names = ("groups", "test_groups", "train_days", "test_days", "valid_days", "embargo_days")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    splits = split_request(walk_forward=arguments.walk_forward, expanding=not arguments.rolling, **given)
    text = arguments.hyperparameters
    overrides = None if text is None else json_object("--hyperparameters", text)
    request = ValidationRequest(arguments.model, splits, arguments.seeds, overrides)
    folder = validate_model(load_settings(), request, progress(arguments))
    info = read_json(folder / REPORT) | {"path": str(folder)}
    return tell(arguments, info, f"\n{(folder / MARKDOWN).read_text()}\n{folder}")
