"""What `make up` was given stays in force for the schedule."""

from pathlib import Path

import pytest
import yaml

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.errors import ConfigError, SourceNotFoundError
from mlops_tasks.stack.overlay import Choice, apply, overlay_of, resolve

SEGMENTS = {"train": "2010-01-04:2014-12-31", "valid": "2015-01-05:2016-12-30", "test": "2017-01-03:2020-08-31"}


def test_a_relative_source_is_taken_from_where_the_user_stands(tmp_path: Path) -> None:
    """Paths become absolute; `synthetic` is no path."""
    (tmp_path / "bars.csv").touch()
    chosen = resolve(Choice(source="bars.csv", universe=str(tmp_path / "bars.csv")), tmp_path)
    assert chosen.source == chosen.universe == str(tmp_path / "bars.csv")
    assert resolve(Choice(source="synthetic"), tmp_path).source == "synthetic"
    assert resolve(Choice(source="warehouse"), tmp_path, {"warehouse"}).source == "warehouse"


@pytest.mark.parametrize(
    "choice", [Choice(source="nowhere.parquet"), Choice(source="synthetic", universe="nowhere.txt")]
)
def test_a_missing_file_is_an_error(choice: Choice, tmp_path: Path) -> None:
    """The message names the variable, the absolute path and the remedy."""
    with pytest.raises(SourceNotFoundError, match=rf"there is no {tmp_path}/nowhere.*give a parquet or CSV file"):
        resolve(choice, tmp_path)


def test_is_what_every_later_process_reads(settings: Settings) -> None:
    """Settings loaded from the home alone have the source, the universe and the segments."""
    apply(Choice(source="/data/bars", universe="/data/members.txt", **SEGMENTS), settings, {})
    loaded = load_settings({"MLOPS_HOME": str(settings.home)})
    assert (loaded.data.source, loaded.data.universe) == ("/data/bars", "/data/members.txt")
    assert loaded.training.test is not None
    assert [day.isoformat() for day in loaded.training.test] == ["2017-01-03", "2020-08-31"]


def test_no_words_leave_the_last_choice(settings: Settings) -> None:
    """`make up` without SOURCE goes on with the source of the last one, to the byte."""
    apply(Choice(source="/data/bars", **SEGMENTS), settings, {})
    before = (settings.home / "settings.yaml").read_bytes()
    assert apply(Choice(), settings, {}).data.source == "/data/bars"
    assert (settings.home / "settings.yaml").read_bytes() == before


def test_a_new_source_drops_what_belonged_to_the_old_one() -> None:
    """Universe and segments go, keys written by hand stay."""
    before = {"data": {"source": "a", "universe": "u", "prices": "raw"}, "training": {**SEGMENTS, "seed": 7}}
    assert overlay_of(before, Choice(source="b")) == {
        "data": {"source": "b", "universe": None, "prices": "raw"},
        "training": {"seed": 7},
    }


def test_a_bad_range_changes_nothing(settings: Settings) -> None:
    """Overlapping segments are refused, and the home keeps what it had."""
    apply(Choice(source="/data/bars"), settings, {})
    before = yaml.safe_load((settings.home / "settings.yaml").read_text())
    with pytest.raises(ConfigError, match="overlap"):
        apply(Choice(**{**SEGMENTS, "valid": "2014-06-01:2016-12-30"}), settings, {})
    assert yaml.safe_load((settings.home / "settings.yaml").read_text()) == before


def test_a_bad_first_choice_leaves_no_file(settings: Settings) -> None:
    """A home without an overlay has none after a refused one."""
    with pytest.raises(ConfigError):
        apply(Choice(train="2010-01-04:2014-12-31"), settings, {})
    assert not (settings.home / "settings.yaml").exists()
