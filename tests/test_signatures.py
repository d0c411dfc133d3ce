"""What is passed between the rooms has a type: no public signature takes or returns a dict whose keys are known."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mlops_tasks

ROOMS = ("training", "modeling", "registry", "evaluation")
UNTYPED = ("dict[str, Any]", "Mapping[str, Any]")
JSON = ("to_json", "from_json")
"""A type's own way to JSON and back."""
FREE = {
    "hyperparameters": "each model has its own",
    "overrides": "of hyper-parameters",
    "form": "what a person has typed, not checked yet",
    "payload": "each kind of event has its own",
    "params": "of MLflow's interface",
}
"""Arguments whose keys nobody but a user, a model or another library knows, and why."""
ALSO_FREE = {
    "modeling/model_zoo/zoo.py:json_schema": "a JSON Schema",
    "modeling/model_zoo/zoo.py:defaults": "hyper-parameters",
    "modeling/model_zoo/zoo.py:resolve": "hyper-parameters",
    "modeling/model_zoo/description.py:describe_zoo": "entries as the user's file has them",
    "modeling/model_zoo/description.py:describe_model": "an entry as the user's file has it",
    "modeling/networks/trainer.py:split": "hyper-parameters",
    "registry/training_record.py:flatten": "any nested mapping",
    "modeling/configuration.py:resolve_config": "what an entry's user overrides of its hyper-parameters",
    "registry/lineage_document.py:vintage_manifest": "a document in MLflow, of whatever release",
    "registry/replay/record.py:configuration": "plan.json as it was recorded, of whatever release",
    "registry/replay/record.py:identity": "a digest's content, of whatever release",
    "registry/replay/turns.py:run": "a stage's result, of whatever type the stage states",
}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Public functions and methods of public classes."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and (each.name == "__init__" or not each.name.startswith("_")):
                    yield each


def untyped(function: ast.FunctionDef) -> Iterator[str]:
    """Its arguments, and its result, that are dicts of anything and may not be."""
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    for argument in arguments:
        if argument.arg not in FREE and is_untyped(argument.annotation):
            yield argument.arg
    if is_untyped(function.returns):
        yield "return"


def is_untyped(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(each in ast.unparse(annotation) for each in UNTYPED)


def test_no_public_signature_has_a_dict_whose_keys_are_known() -> None:
    """Every other one is listed here with its reason, and every listed one is there."""
    package, found = Path(mlops_tasks.__file__).parent, set()
    for path in (file for room in ROOMS for file in (package / room).rglob("*.py")):
        for function in functions(path):
            if function.name not in JSON and any(untyped(function)):
                found.add(f"{path.relative_to(package).as_posix()}:{function.name}")
    assert found == set(ALSO_FREE)
