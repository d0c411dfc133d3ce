"""What is typed into a form is read as it is meant, and what cannot be is refused in one line."""

import pytest

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.overrides import read_overrides

TYPED = """
# a quick look
lightgbm.num_leaves=31
 lightgbm.learning_rate = 0.05
linear.estimator=ridge
linear.fit_intercept=true
my-model.layers=[64, 32]
lightgbm.note=a=b
"""


def test_a_text_of_lines_is_the_same_as_a_mapping() -> None:
    """Numbers, words, truth values and lists; comments, spaces and empty lines say nothing."""
    meant = {
        "lightgbm": {"num_leaves": 31, "learning_rate": 0.05, "note": "a=b"},
        "linear": {"estimator": "ridge", "fit_intercept": True},
        "my-model": {"layers": [64, 32]},
    }
    assert read_overrides("hyperparameters", TYPED) == meant
    assert read_overrides("hyperparameters", meant) == meant
    assert read_overrides("hyperparameters", " \n") == {}


def test_a_further_dot_is_a_further_level() -> None:
    """As the overfitting detector's, within when a training stops."""
    text = "xgboost.patience=30\nxgboost.overfitting.action=stop\nxgboost.overfitting.window=7"
    assert read_overrides("stopping", text) == {
        "xgboost": {"patience": 30, "overfitting": {"action": "stop", "window": 7}}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "num_leaves=31",
            "^hyperparameters, line 1: expected model.name=value, such as .*, got 'num_leaves=31'; correct it",
        ),
        ("linear.alpha=1\nlinear.estimator", "^hyperparameters, line 2: expected model.name=value"),
        ("linear.alpha=", "line 1: expected"),
        ("=3", "line 1: expected"),
        (".alpha=3", "line 1: expected"),
        ("linear.=3", "line 1: expected"),
        ('{"lightgbm": {"num_leaves": 31}}', "line 1: expected"),
        ("linear.alpha=1\n\nlinear.alpha=2", "line 3: 'linear.alpha' is given a second time; keep one"),
        ("linear.alpha=1\nlinear.alpha.more=2", "line 2: 'linear.alpha.more' is given a second time"),
        ("x" * 5000, r"got 'x+\.\.\.'; correct it$"),
    ],
)
def test_a_line_that_says_nothing_clear_is_refused_by_its_number(text: str, said: str) -> None:
    """In fewer characters than a person reads at a glance, whatever was typed."""
    with pytest.raises(ConfigError, match=said) as error:
        read_overrides("hyperparameters", text)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", ["[" * 50_000, "[" * 600 + "]" * 600, '{"a":' * 3000])
def test_no_value_exhausts_the_stack(value: str) -> None:
    """One list in another, however many: the line is refused like any other wrong one."""
    with pytest.raises(ConfigError, match=r"^hyperparameters, line 1: .* has more than 100 levels"):
        read_overrides("hyperparameters", f"mlp.layers={value}")


def test_no_path_is_deeper_than_what_reads_it_goes() -> None:
    """A level for each dot."""
    with pytest.raises(ConfigError, match=r"^stopping, line 1: .* has more than 100 levels"):
        read_overrides("stopping", f"mlp.{'a.' * 20_000}b=1")
