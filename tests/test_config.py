"""Settings are typed, checked, and say what to correct."""

import pytest

from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError


def test_the_environment_wins_over_the_home_file_which_wins_over_the_defaults(tmp_path):
    """Three sources, merged key by key."""
    (tmp_path / "settings.yaml").write_text("training: {seed: 7, horizon: 5}\n")
    settings = load_settings({"MLOPS_HOME": str(tmp_path), "MLOPS_TRAINING__SEED": "9"})
    assert (settings.training.seed, settings.training.horizon, settings.training.threads) == (9, 5, 2)
    assert settings.home == tmp_path


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MLOPS_STACK__AIRFLOW_PORT", "eighty", r"stack\.airflow_port.*'eighty'"),
        ("MLOPS_STACK__AIRFLOW_PORT", "5500", "must differ"),
        ("MLOPS_STAK__AIRFLOW_PORT", "80", r"stak: Extra inputs"),
        ("MLOPS_TRAINING__HORIZON", "0", r"training\.horizon"),
        ("MLOPS_TRAINING__TRAIN", "2010-01-04:2014-12-31", "train, valid and test together"),
        ("MLOPS_GATE__ALPHA", "1.5", r"gate\.alpha"),
        ("MLOPS_DEPLOYMENT__CANARY_STEPS_PCT", "50,5", r"deployment.*must increase"),
        ("MLOPS_DEPLOYMENT__HOLD_H", "200", r"deployment.*the deadline is after 336 h; raise deadline_days"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, variable, value, message):
    """The error names the key and shows the value."""
    with pytest.raises(ConfigError, match=message):
        load_settings({"MLOPS_HOME": str(tmp_path), variable: value})


def test_overlapping_segments_are_refused(tmp_path):
    """Segments follow one another."""
    environ = {
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_TRAINING__TRAIN": "2010-01-04:2014-12-31",
        "MLOPS_TRAINING__VALID": "2014-06-01:2016-12-31",
        "MLOPS_TRAINING__TEST": "2017-01-01:2020-08-31",
    }
    with pytest.raises(ConfigError, match=r"valid starts 2014-06-01, train ends 2014-12-31: they overlap"):
        load_settings(environ)


def test_a_home_file_that_is_no_mapping_is_named(tmp_path):
    """A list where sections are expected is an error with the file's path."""
    (tmp_path / "settings.yaml").write_text("- training\n")
    with pytest.raises(ConfigError, match=r"settings\.yaml: expected a mapping"):
        load_settings({"MLOPS_HOME": str(tmp_path)})
