"""What is not used is not imported in the processes of the stages."""

import subprocess
import sys

import pytest

from mlops_tasks.config import PROJECT

SHOW = "import sys; print(*({'jsonschema', 'rfc3987_syntax', 'lark'} & set(sys.modules)))"


def test_no_grammar_is_compiled_with_it() -> None:
    """Who has jsonschema imported by it has no parser of web addresses."""
    first = "from mlops_tasks.lean_imports import import_json_schema as do; do()"
    done = subprocess.run(
        [sys.executable, "-c", f"{first}; {SHOW}"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout.split() == ["jsonschema"], done.stderr


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported after the code."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    return set(done.stdout.split())


def test_a_late_import_is_made_at_its_first_use() -> None:
    """Until then nothing of the package is there; then it is the very package, for those too who had it before."""
    use = "from mlops_tasks.lean_imports import import_late; import_late('colorsys'); import colorsys as before"
    assert "colorsys" in modules_after(use)
    check = "assert 'ONE_THIRD' not in vars(before); before.rgb_to_hsv(0, 0, 0)"
    again = "import colorsys; assert 'ONE_THIRD' in vars(colorsys) and before.rgb_to_hsv is colorsys.rgb_to_hsv"
    modules_after(f"{use}; {check}; {again}")
    missing = "import_late('no_such_package')"
    assert "no_such_package" not in modules_after(f"from mlops_tasks.lean_imports import import_late; {missing}")


LIBRARIES = {
    "sqlalchemy",
    "numba",
    "mlflow",
    "qlib",
    "scipy",
    "torch",
    "dvc",
    "matplotlib",
    "lightgbm",
    "sklearn",
    "boto3",
}


@pytest.mark.parametrize(
    ("stages", "known"),
    [
        ("mlops_tasks.data.tasks", set()),
        ("mlops_tasks.training.tasks", set()),
        ("mlops_tasks.training.fit", set()),
        ("mlops_tasks.evaluation.tasks", set()),
    ],
)
def test_a_stage_imports_heavy_libraries_when_it_needs_them(stages: str, known: set[str]) -> None:
    """Each of a day's thirty processes would pay for what only some of them use."""
    assert modules_after(f"import {stages}") & LIBRARIES <= known
