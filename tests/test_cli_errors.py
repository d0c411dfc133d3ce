"""What is given in another form than it should be is an error of ours, with place and remedy."""

import json
import re
from pathlib import Path

import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.sets import find_feature_set
from mlops_tasks.modeling.model_zoo.zoo import read_zoo
from mlops_tasks.stack.overlay import Choice, apply

WRONG_YAML = {
    "a tab": (b"data:\n  source: x\n\tprices: raw\n", "line 3, column 1; indent with blanks"),
    "UTF-16": ("data:\n  source: x\n".encode("utf-16"), "line 1 is not UTF-8.*save it as UTF-8"),
    "Latin-1": ("data:\n  source: B\u00f6rse\n".encode("latin-1"), "line 2 is not UTF-8.*save it as UTF-8"),
    "GB 18030": ("# \u6d66\u53d1\ndata: {}\n".encode("gb18030"), "line 1 is not UTF-8"),
    "a control character": (b"data:\n  source: \x07\n", "character 17 is one that YAML does not allow"),
    "an open quote": (b"data:\n  source: 'x\n", "line 3"),
}


@pytest.mark.parametrize("case", WRONG_YAML)
@pytest.mark.parametrize("name", ["settings.yaml", "models.yaml", "feature_sets.yaml"])
def test_yaml_that_cannot_be_read_says_where_and_what_to_do(case: str, name: str, tmp_path: Path) -> None:
    """Whichever of the user's own files it is."""
    content, words = WRONG_YAML[case]
    settings = load_settings({"MLOPS_HOME": str(tmp_path)})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read as YAML: .*{words}"):
        match name:
            case "settings.yaml":
                load_settings({"MLOPS_HOME": str(tmp_path)})
            case "models.yaml":
                read_zoo(settings)
            case _:
                find_feature_set("mine", settings)


@pytest.mark.parametrize("case", WRONG_YAML)
def test_make_up_names_settings_that_it_cannot_add_to(case: str, tmp_path: Path) -> None:
    """The file stays as it is."""
    settings = load_settings({"MLOPS_HOME": str(tmp_path)})
    (tmp_path / "settings.yaml").write_bytes(WRONG_YAML[case][0])
    with pytest.raises(ConfigError, match=r"settings\.yaml: cannot be read as YAML"):
        apply(Choice(source="/data/bars.csv"), settings, {})
    assert (tmp_path / "settings.yaml").read_bytes() == WRONG_YAML[case][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{", "invalid JSON in line 1, column 2"),
        ("", "invalid JSON in line 1, column 1"),
        ("staging=x", "invalid JSON in line 1, column 1"),
        ("{'staging': 'x'}", "invalid JSON in line 1, column 2: .*single quotes"),
        ('{"staging":\n "x",}', "invalid JSON in line 2"),
        ("[1]", "expected an object, got list"),
        ("null", "expected an object, got NoneType"),
        ('{"stagin": "x"}', "unexpected keyword argument 'stagin'.*it takes staging|missing.*it takes staging"),
        ("{}", "missing a required.*it takes staging"),
        ("[" * 100_000, "nested too deep|invalid JSON"),
    ],
)
def test_arguments_of_a_stage_that_are_none_are_an_error_of_ours(
    arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the place, what is expected, and status 1."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    assert main(["run", "data.validate_bars", "--arguments", arguments]) == 1
    assert re.search(f"ConfigError: run .*({words})", capsys.readouterr().out)


def test_overrides_that_are_no_json_are_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a stage."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    assert (
        main(["models", "validate", "linear", "--groups", "4", "--test-groups", "1", "--hyperparameters", "{alpha}"])
        == 1
    )
    assert "ConfigError: --hyperparameters: invalid JSON in line 1, column 2" in capsys.readouterr().out


def test_arguments_that_are_right_reach_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the stage says of them is its own error."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    assert main(["run", "data.validate_bars", "--arguments", json.dumps({"staging": "0" * 16})]) == 1
    assert "StoreError" in capsys.readouterr().out
