"""The zoo says what may be asked of each model, and its own entries are held to that too."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.description import describe_zoo, memory_estimate
from mlops_tasks.modeling.model_zoo.families import FAMILIES
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.schema import allowed, check_schema, check_value
from mlops_tasks.modeling.model_zoo.zoo import model_zoo, read_zoo, zoo_entry
from mlops_tasks.tuning.study import study_config

FOREST = """
forest:
  family: sklearn
  class_path: sklearn.ensemble:ExtraTreesRegressor
  description: Randomised trees.
  recommended_for: [Tests.]
  feature_processors: [robust_zscore_fill_zero]
  label_processor: CSRankNorm
  hyperparameters:
    n_estimators: {type: integer, minimum: 1, maximum: 500, default: 20, search: log, low: 10, high: 200}
    max_depth: {type: [integer, 'null'], minimum: 1, default: null}
    max_features: {type: number, exclusiveMinimum: 0, maximum: 1, default: 0.5, search: linear, low: 0.1, high: 1.0}
"""


def home(tmp_path: Path, text: str = FOREST) -> Settings:
    (tmp_path / "models.yaml").write_text(text)
    return Settings(home=tmp_path)


def test_every_shipped_entry_is_right_and_its_defaults_are_allowed():
    """No entry has an error, and each names a family that is there."""
    zoo = read_zoo()
    assert not zoo.errors and zoo.entries
    for name, entry in zoo.entries.items():
        assert entry.resolve(name, {}) == entry.defaults()
        assert hasattr(find_family(entry.family), "memory_bytes")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"num_leafs": 31}, r"hyperparameters\.lightgbm\.num_leafs: unknown; did you mean num_leaves"),
        ({"num_leaves": True}, r"\.num_leaves: expected an integer from 2 to 4096, got True.*leave it out for 210"),
        ({"num_leaves": "31"}, r"\.num_leaves: expected an integer from 2 to 4096, got '31'"),
        ({"num_leaves": 31.5}, "expected an integer"),
        ({"num_leaves": 1}, "from 2 to 4096, got 1;"),
        ({"learning_rate": 0}, "a number above 0 and not above 1, got 0;"),
        ({"learning_rate": math.nan}, "got nan"),
        ({"lambda_l1": math.inf}, "a number not below 0, got inf"),
        ({"lambda_l1": None}, "got None"),
        ({"loss": "mae"}, r"\.loss: expected one of 'mse', got 'mae'"),
    ],
)
def test_an_override_that_is_not_allowed_is_refused(overrides, said):
    """The error has the path, what is allowed, what was given, and what to do."""
    with pytest.raises(ConfigError, match=said):
        resolve_config("lightgbm", overrides, seed=1)


def test_equal_values_are_one_configuration_whatever_their_type():
    """31.0 leaves are 31, and a penalty of 1 is 1.0: the same digest, so the same training."""
    one = resolve_config("lightgbm", {"num_leaves": 31.0, "lambda_l1": 1}, seed=1)
    other = resolve_config("lightgbm", {"num_leaves": 31, "lambda_l1": 1.0}, seed=1)
    assert one.model_dump_json() == other.model_dump_json()


@given(st.integers(-50, 50), st.integers(-50, 50), st.one_of(st.integers(-99, 99), st.floats(), st.booleans()))
def test_a_range_holds_exactly_its_own_numbers(low, high, value):
    """An integer, or a float that is one, between both ends; nothing else."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    inside = not isinstance(value, bool) and low <= value <= high
    if inside and value == int(value):
        assert check_value("x", schema, value) == value
    else:
        with pytest.raises(ConfigError, match="x: expected an integer"):
            check_value("x", schema, value)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"default": 1}, r"x\.type: is missing"),
        ({"type": "integer"}, r"x\.default: is missing"),
        ({"type": "int", "default": 1}, r"x\.type: 'int' is not a valid value"),
        ({"type": "integer", "minmum": 1, "default": 1}, r"x\.minmum: unknown keyword; did you mean minimum"),
        ({"type": "integer", "minimum": "1", "default": 1}, r"x\.minimum: '1' is not a valid value"),
        ({"type": "integer", "minimum": 2, "default": 1}, r"x\.default: expected an integer not below 2, got 1"),
        ({"type": "integer", "enum": [1, "a"], "default": 1}, r"x\.enum: expected an integer, got 'a'"),
        ({"type": "array", "items": {"typ": "integer"}, "default": []}, r"x\.items\.typ: unknown keyword"),
        ({"type": "array", "items": {"type": "integer"}, "default": [1.5]}, "a list each an integer, got"),
        ({"type": "number", "default": 1, "search": "wide"}, r"x\.search: 'wide' is not a valid value"),
        ({"type": "number", "default": 1, "search": "log"}, r"x\.search: log needs .* low and high"),
        ({"type": "number", "default": 1, "search": "log", "low": 0, "high": 1}, "give low above 0"),
        ({"type": "number", "default": 1, "search": "linear", "low": 2, "high": 1}, "a larger high"),
        ({"type": "number", "minimum": 0, "default": 1, "search": "linear", "low": -1, "high": 1}, r"x\.low: expected"),
        ({"type": "string", "default": "a", "search": "categorical"}, "categorical needs enum"),
        ({"type": "number", "default": 1, "low": 0, "high": 1}, "give search"),
        ({"type": "integer", "default": 1, "window_share": 0.5}, "give search"),
        (
            {"type": "integer", "default": 1, "search": "linear", "low": 1, "high": 2, "window_share": 2},
            r"x\.window_share: 2 is not a valid value",
        ),
        (
            {"type": "boolean", "default": True, "search": "categorical", "window_share": 1},
            r"x\.window_share: only bounds a log or linear search",
        ),
        ({"type": "number", "default": 1, "advanced": "yes"}, r"x\.advanced: 'yes' is not a valid value"),
    ],
)
def test_a_schema_that_says_nothing_sensible_is_refused(schema, said):
    """Keywords are a closed list: one with a slip would check nothing."""
    with pytest.raises(ConfigError, match=said):
        check_schema("x", schema)


def test_what_is_allowed_is_said_in_words():
    """As an error or a form has it."""
    assert allowed({"type": ["integer", "null"], "minimum": 1}) == "an integer or null not below 1"
    assert allowed({"type": "array", "items": {"type": "number"}, "minItems": 2}) == (
        "a list each a number of at least 2 elements"
    )


def test_your_own_models_are_trained_tuned_and_described_as_the_shipped_ones(tmp_path):
    """An entry in the home folder is in the zoo, in a configuration, in a search and in the description."""
    settings = home(tmp_path)
    assert list(model_zoo(settings)) == [*model_zoo(), "forest"]
    config = resolve_config("forest", {"max_depth": 3}, seed=1, settings=settings)
    assert config.hyperparameters == {"n_estimators": 20, "max_depth": 3, "max_features": 0.5}
    assert study_config(settings, {"model": "forest"}).model == "forest"
    described = {each["name"]: each for each in describe_zoo(settings)}
    assert described["forest"]["own"] and not described["lightgbm"]["own"]
    assert described["forest"]["hyperparameters"][0]["search"] == {"kind": "log", "low": 10, "high": 200}
    with pytest.raises(ConfigError, match=f"unknown model 'forest'.*{tmp_path}"):
        zoo_entry("forest", Settings(home=tmp_path / "other"))


BROKEN = {
    "a reserved name": (FOREST.replace("forest:", "auto:"), "auto", "not a valid model name"),
    "an unknown family": (FOREST.replace("sklearn\n", "sklaern\n", 1), "forest", "family: unknown family .*sklearn"),
    "an unknown key": (FOREST + "  colour: red\n", "forest", "colour: unknown key; known: .*class_path"),
    "a key twice": (FOREST + "  family: sklearn\n", "forest", "family is there twice"),
    "the entry twice": (FOREST + FOREST, "forest", "is there 2 times"),
    "no class": (FOREST.replace("  class_path: sklearn.ensemble:ExtraTreesRegressor\n", ""), "forest", "needs module:"),
    "no class path": (FOREST.replace("ensemble:Extra", "ensemble.Extra"), "forest", "needs module:Class"),
    "a needless class": (FOREST.replace("family: sklearn", "family: linear"), "forest", "has its own class; remove"),
    "no description": (FOREST.replace("  description: Randomised trees.\n", ""), "forest", "description: is missing"),
    "a wrong stop": (
        FOREST + "  stopping: {metrc: ic}\n",
        "forest",
        r"stopping\.metrc: unknown key; did you mean metric",
    ),
    "a wrong processor": (FOREST.replace("CSRankNorm", "CSRank"), "forest", "label_processor: .*CSRankNorm"),
    "a wrong default": (FOREST.replace("default: 20", "default: 0"), "forest", "n_estimators.default: expected"),
    "a window": (FOREST + "    window: {type: integer, default: 5}\n", "forest", "sees the row's own day only"),
    "no mapping": ("forest: 5\n", "forest", "expected a mapping of family"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_wrong_entry_is_named_and_spoils_no_other_one(tmp_path, case):
    """It cannot be trained, says where and why, and the rest of the zoo works."""
    text, name, said = BROKEN[case]
    settings = home(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"models\.yaml: {name}.*{said}"):
        zoo_entry(name, settings)
    assert zoo_entry("lightgbm", settings) == zoo_entry("lightgbm")
    assert [each["name"] for each in describe_zoo(settings) if each["error"]] == [name]


@pytest.mark.parametrize("entry", [FOREST, "forest: 5\n", FOREST + FOREST])
def test_an_entry_with_a_shipped_name_leaves_the_shipped_model(tmp_path, entry):
    """Whether it is right or wrong; it is named, and the last description of that name is the shipped model's."""
    settings = home(tmp_path, entry.replace("forest:", "linear:"))
    assert zoo_entry("linear", settings) == zoo_entry("linear")
    assert {each["name"]: each for each in describe_zoo(settings)}["linear"]["error"] is None
    (wrong,) = [each for each in describe_zoo(settings) if each["error"]]
    assert wrong["name"] == "linear" and "is the name of a shipped model" in wrong["error"]


def test_the_description_is_plain_json_and_light(tmp_path):
    """What a DAG file or a page reads brings no heavy package with it."""
    home(tmp_path)
    script = (
        "import sys, json; from pathlib import Path\n"
        "from mlops_tasks.config import Settings\n"
        "from mlops_tasks.modeling.model_zoo.description import describe_zoo\n"
        f"json.dumps(describe_zoo(Settings(home=Path({str(tmp_path)!r}))))\n"
        "print([name for name in ('torch', 'qlib', 'sklearn', 'pandas', 'mlflow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_estimates_grow_with_rows_and_columns(tmp_path):
    """Every family has one; it is of the matrix at least."""
    settings = home(tmp_path)
    assert {entry.family for entry in model_zoo(settings).values()} <= set(FAMILIES)
    for name in model_zoo(settings):
        small, large = (memory_estimate(settings, name, rows, 100) for rows in (10_000, 1_000_000))
        assert 4 * 100 * 10_000 <= small < large
        assert small < memory_estimate(settings, name, 10_000, 200)


def test_the_command_line_lists_and_shows_your_own_models(tmp_path, monkeypatch, capsys):
    """With ranges, and the memory that a training of a size needs."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    home(tmp_path)
    assert main(["models", "list", "--json"]) == 0
    assert "forest" in [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert main(["models", "show", "forest", "--rows", "1000", "--features", "10"]) == 0
    shown = capsys.readouterr().out
    assert "n_estimators = 20: an integer from 1 to 500; searched, log from 10 to 200" in shown
    assert " MB." in shown
    assert main(["models", "show", "forest", "--rows", "1000"]) == 1
    assert "--features: give both" in capsys.readouterr().out
    home(tmp_path, "forest: 5\n")
    assert main(["models", "list"]) == 1
    assert "forest: expected a mapping" in capsys.readouterr().out
