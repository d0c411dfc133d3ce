"""What a search is asked: its space is the zoo's, bad questions are refused, equal ones have one name."""

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.network import Architecture
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, model_zoo, zoo_entry
from mlops_tasks.modeling.networks.trainer import TrainerConfig
from mlops_tasks.tuning.space import search_space, within
from mlops_tasks.tuning.study import study_config


@pytest.mark.parametrize("model", list(model_zoo()))
def test_every_model_of_the_zoo_has_a_space_of_valid_values(model):
    """Both ends of each range are values that the model takes, and what is not searched is not in the space."""
    entry = zoo_entry(model)
    space = search_space(model, entry)
    assert set(space) == {name for name, schema in entry.hyperparameters.items() if "search" in schema}
    for name, distribution in space.items():
        words = isinstance(distribution, CategoricalDistribution)
        ends = distribution.choices if words else (distribution.low, distribution.high)
        for value in ends:
            assert entry.resolve(model, {name: value})[name] == value


@pytest.mark.parametrize("window", [2, 5, 10, 250])
@pytest.mark.parametrize("model", [name for name, entry in model_zoo().items() if "window" in entry.hyperparameters])
def test_every_network_of_a_space_fits_into_the_window_that_is_fixed(model, window):
    """The defaults, moved inside, and both ends of all ranges at once can be made and score."""
    entry, fixed = zoo_entry(model), {"window": window}
    space = search_space(model, entry, fixed)
    numbers = {name: each for name, each in space.items() if not isinstance(each, CategoricalDistribution)}
    ends = [{name: getattr(each, end) for name, each in numbers.items()} for end in ("low", "high")]
    for values in ({}, *ends):
        inside = within(space, {**entry.defaults(), **values})
        _, architecture = TrainerConfig.split(entry.resolve(model, {**fixed, **inside}))
        network = Architecture(entry.class_path, 3, window, architecture).build().eval()
        assert network(torch.zeros(2, window, 3)).shape == (2,)


def test_a_longer_window_leaves_the_space_as_the_entry_has_it():
    """Patches of up to 16 days and half the window's frequencies, where there is room for them."""
    spaces = {window: search_space("patchtst", zoo_entry("patchtst"), {"window": window}) for window in (5, 16, 20)}
    assert spaces[5]["patch_length"] == IntDistribution(4, 5)
    assert spaces[16] == spaces[20] == search_space("patchtst", zoo_entry("patchtst"))
    assert search_space("timesnet", zoo_entry("timesnet"), {"window": 5})["top_k"] == IntDistribution(1, 2)


def test_the_space_follows_the_schema():
    """Type, scale and bounds; a fixed hyper-parameter is not varied."""
    space = search_space("lightgbm", zoo_entry("lightgbm"), {"max_depth": 4})
    assert space["learning_rate"] == FloatDistribution(0.01, 0.3, log=True)
    assert space["num_leaves"] == IntDistribution(8, 512, log=True)
    assert "max_depth" not in space and "num_boost_round" not in space
    assert within(space, {"num_leaves": 4000, "learning_rate": 0.1, "loss": "mse"}) == {
        "num_leaves": 512,
        "learning_rate": 0.1,
    }


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "number", "search": "log"}, "x: search: log needs low and high"),
        ({"type": "number", "search": "log", "low": 0, "high": 1}, "x: `low > 0` must hold"),
        ({"type": "string", "search": "categorical"}, "x: search: categorical needs enum"),
        ({"type": "number", "search": "wide", "low": 0, "high": 1}, "x: unknown search 'wide'"),
    ],
)
def test_a_wrong_entry_is_named(schema, said):
    """The error has the path of the key."""
    fields = {"family": "linear", "description": "", "recommended_for": (), "label_processor": "CSRankNorm"}
    entry = ModelEntry(**fields, hyperparameters={"x": {"default": 1, **schema}})
    with pytest.raises(ConfigError, match=f"hyperparameters.mine.{said}"):
        search_space("mine", entry)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"model": "lightgmb"}, "unknown model 'lightgmb'"),
        ({"sampler": "genetic"}, "tuning.sampler"),
        ({"objectives": ["rank_ic", "sharpe"]}, "tuning.objectives.1"),
        ({"objectives": ["ic", "ic"]}, "named twice"),
        ({"objectives": ["ic", "turnover"], "sampler": "cmaes"}, "needs one objective"),
        ({"objectives": ["ic", "turnover"], "pruner": "median"}, "choose pruner none"),
        ({"objectives": ["turnover"], "pruner": "median"}, "compares ICs"),
        ({"model": "linear", "sampler": "cmaes"}, "numeric"),
        ({"pruner": "wilcoxon"}, "set folds to 2 or more"),
        ({"folds": 3, "pruner": "median"}, "set folds to 1, or use wilcoxon"),
        ({"fixed": {"num_leafs": 4}}, "num_leafs: unknown"),
        ({"first": [{"num_leafs": 4}]}, "num_leafs: unknown"),
        ({"fixed": zoo_entry("lightgbm").defaults()}, "no hyper-parameter of lightgbm is searched"),
        ({"trials": 0}, "tuning.trials"),
        ({"memory_mb": -1}, "tuning.memory_mb"),
    ],
)
def test_a_bad_study_is_refused_with_the_key_and_the_remedy(form, said, tmp_path):
    """Before anything is made or loaded."""
    with pytest.raises(ConfigError, match=said):
        study_config(Settings(home=tmp_path), {"model": "lightgbm", **form})


def test_several_objectives_are_searched_by_nsga2_and_folds_prune_by_wilcoxon(tmp_path):
    """What the form leaves open follows from what it asks."""
    settings = Settings(home=tmp_path)
    several = study_config(settings, {"model": "lightgbm", "objectives": ["ic", "turnover"]})
    assert (several.sampler, several.pruner) == ("nsga2", "none")
    assert study_config(settings, {"model": "lightgbm", "folds": 3}).pruner == "wilcoxon"


def test_the_name_is_the_question_and_not_the_budget(tmp_path):
    """More trials go on with the same study; another seed, range of values or vintage is another one."""

    def name(data, **form):
        return study_config(Settings(home=tmp_path), {"model": "lightgbm", **form}).name({"v": data})

    assert name(1) == name(1, trials=99, time_s=5, memory_mb=10)
    assert len({name(1), name(2), name(1, seed=1), name(1, sampler="gp"), name(1, fixed={"max_depth": 3})}) == 5
