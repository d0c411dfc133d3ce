"""The selector ranks first what learns the planted signal, says why, and promises nothing on noise."""

import dataclasses
import json

import numpy as np
import pytest

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, model_zoo
from mlops_tasks.tuning.selector import Constraints, select_algorithm
from tests.tuning.profiles import SMALL, profile_of

ZOO = {name: model_zoo()[name] for name in ("lightgbm", "linear")}
WINDOW = ModelEntry(
    family="network",
    description="sees a window",
    recommended_for=(),
    label_processor="CSRankNorm",
    hyperparameters={"window": {"type": "integer", "minimum": 2, "maximum": 60, "default": 20}},
)


class _Free:
    """A family that needs no memory, where the estimate is not what is tested."""

    @classmethod
    def memory_bytes(cls, hyperparameters, rows, features) -> int:
        return 0


@pytest.fixture
def zoo_with_window(monkeypatch):
    monkeypatch.setattr("mlops_tasks.tuning.selector.find_family", lambda name: _Free)
    return {**ZOO, "window": WINDOW}


@pytest.mark.parametrize(
    ("kind", "best"),
    [
        ("linear", "linear"),
        ("sparse", "linear"),
        ("threshold", "lightgbm"),
        ("xor", "lightgbm"),
        ("periodic", "window"),
    ],
)
def test_the_model_that_learns_a_planted_signal_comes_first(zoo_with_window, kind, best):
    """Linear signals go to the simple model, non-linear ones to trees, those of the days before to a window."""
    found = select_algorithm(profile_of(kind), zoo_with_window)
    assert found.skill_found
    assert found.ranking[0].model == best, found.summary


def test_no_skill_is_promised_on_noise_and_the_simplest_model_comes_first():
    """Over eight markets of noise, skill is found in one at most; the first choice is then the linear model."""
    found = [select_algorithm(profile_of("noise", seed, SMALL), ZOO) for seed in range(8)]
    assert sum(each.skill_found for each in found) <= 1
    for each in found:
        if not each.skill_found:
            assert each.ranking[0].model == "linear"
            assert "no skill is promised" in each.summary


def test_the_first_hyperparameters_are_valid_and_the_reasons_have_numbers():
    """Each ranked model's overrides resolve against its entry, and the whole is plain JSON."""
    found = select_algorithm(profile_of("threshold"), ZOO)
    for choice in found.ranking:
        resolve_config(choice.model, choice.hyperparameters, seed=0)
        assert any(character.isdigit() for character in choice.reasons[0])
    assert json.loads(json.dumps(found.to_json()))["ranking"][0]["model"] == "lightgbm"


def test_models_that_do_not_fit_are_refused_with_the_numbers():
    """Between the two estimates one model remains; below both there is none, and the error says what to do."""
    profile = dataclasses.replace(profile_of("noise"), rows=1_000_000, features=158)
    needs = {
        name: find_family(ZOO[name].family).memory_bytes(ZOO[name].defaults(), profile.rows, profile.features)
        for name in ("lightgbm", "linear")
    }
    heavier = max(needs, key=needs.__getitem__)
    found = select_algorithm(profile, ZOO, Constraints(memory_bytes=sum(needs.values()) // 2))
    assert [choice.model for choice in found.ranking] == [name for name in needs if name != heavier]
    assert list(found.refused) == [heavier] and "GB are allowed" in found.refused[heavier]
    with pytest.raises(ConfigError, match="raise the memory limit"):
        select_algorithm(profile, ZOO, Constraints(memory_bytes=1))


def test_a_window_follows_the_length_of_the_memory():
    """The periodic signal needs all ten days; a linear one of the own day the fewest."""
    assert profile_of("periodic").history_days == 10
    assert profile_of("linear").history_days == 2
    assert np.isclose(profile_of("linear").effective_rank, 8, atol=0.2)


def test_patches_go_first_over_few_columns():
    """Reading a column by itself is for tens of columns; over 158, a recurrent network goes first."""
    zoo = {name: model_zoo()[name] for name in ("linear", "lstm", "patchtst")}
    profile = profile_of("periodic")
    first, second = select_algorithm(profile, zoo).ranking[:2]
    assert (first.model, second.model) == ("patchtst", "lstm")
    assert first.hyperparameters == {"window": 10, "patch_length": 4, "stride": 2}
    assert second.hyperparameters == {"window": 10}
    for choice in (first, second):
        resolve_config(choice.model, choice.hyperparameters, seed=0)
    wide = dataclasses.replace(profile, features=158)
    assert select_algorithm(wide, zoo).ranking[0].model == "lstm"
