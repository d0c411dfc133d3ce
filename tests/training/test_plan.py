"""A plan is complete and checked before any work."""

import pandas as pd
import pytest

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.training.plan import RunPlan, make_plan, rolling_segments

CALENDAR = pd.bdate_range("2015-01-01", "2018-12-31")


def plan(tmp_path, **form):
    return make_plan(Settings(home=tmp_path), "v1", CALENDAR, form)


def test_the_default_segments_cover_the_calendar_in_order(tmp_path):
    """60/20/20 of the labelled days, without gap or overlap, the newest day in the test segment."""
    segments = plan(tmp_path).segments
    days = [CALENDAR.slice_indexer(*map(pd.Timestamp, segments[name])) for name in ("train", "valid", "test")]
    assert [d.start for d in days] == [0, days[0].stop, days[1].stop]
    assert days[2].stop == len(CALENDAR)
    labelled = len(CALENDAR) - 2
    assert [d.stop - d.start for d in days[:2]] == [int(labelled * 0.6), int(labelled * 0.8) - int(labelled * 0.6)]


def test_a_form_overrides_the_settings(tmp_path):
    """What the form gives counts; what it leaves empty comes from the settings."""
    result = plan(tmp_path, models=["linear"], horizon=5, topk=None, seed=0, deployment_strategy="shadow")
    assert (result.models, result.horizon, result.topk, result.seed) == (("linear",), 5, 50, 0)
    assert result.deployment_strategy == "shadow"


def test_the_feature_set_is_checked_before_any_work(tmp_path):
    """A set of the user's own is taken; a wrong expression in it ends the plan, with its place."""
    own = "mine:\n  version: 1\n  owner: me\n  description: d\n  factors:\n    X: Ref($close, {rows})/$close\n"
    (tmp_path / "feature_sets.yaml").write_text(own.format(rows=1))
    assert plan(tmp_path).feature_set == "alpha158"
    assert plan(tmp_path, feature_set="mine").feature_set == "mine"
    (tmp_path / "feature_sets.yaml").write_text(own.format(rows=-1))
    with pytest.raises(ConfigError, match=r"(?s)feature_sets.yaml: mine.factors.X: .*future.*\^ column 1"):
        plan(tmp_path, feature_set="mine")


SEGMENTS = {"train": "2015-01-01:2016-12-31", "valid": "2017-01-01:2017-12-31", "test": "2018-01-01:2018-12-31"}


def test_explicit_segments_are_taken(tmp_path):
    """The form's `first:last` text becomes dates."""
    segments = plan(tmp_path, **SEGMENTS).segments
    assert {n: f"{a}:{b}" for n, (a, b) in segments.items()} == SEGMENTS


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        ({"models": ["lightgbn"]}, ConfigError, "^models: unknown model 'lightgbn'.*lightgbm"),
        ({"models": ["linear", "linear"]}, ConfigError, "named twice"),
        ({"horzion": 5}, ConfigError, "^horzion: unknown; did you mean horizon?"),
        ({"trian": SEGMENTS["train"]}, ConfigError, "^trian: unknown; did you mean train?"),
        ({"horizon": 0}, ConfigError, "^horizon: expected an integer from 1 to 60, got 0; correct it"),
        ({"horizon": 2.9}, ConfigError, "^horizon: .* got 2.9"),
        ({"horizon": True}, ConfigError, "^horizon: .* got True"),
        ({"horizon": "five"}, ConfigError, "^horizon: .* got 'five'"),
        ({"horizon": [5]}, ConfigError, r"^horizon: .* got \[5\]"),
        ({"seed": "3"}, ConfigError, "^seed: expected an integer not below 0, got '3'"),
        ({"topk": True}, ConfigError, "^topk: .* got True"),
        ({"n_drop": None, "topk": 0}, ConfigError, "^topk: expected an integer not below 1, got 0"),
        ({"models": "linear"}, ConfigError, "models: .*tuple, got 'linear'"),
        ({"models": ["linear", 3]}, ConfigError, "models.1: .*string, got 3"),
        ({**SEGMENTS, "test": 2018}, ConfigError, "segments.test: .*tuple, got 2018"),
        ({"hyperparameters": [1]}, ConfigError, r"^hyperparameters: expected a mapping of models .* got \[1\]"),
        (
            {"hyperparameters": "lightgbm"},
            ConfigError,
            "^hyperparameters, line 1: expected model.name=value.* got 'lig",
        ),
        ({"stopping": "lightgbm.patience=0"}, ConfigError, "stopping.lightgbm.patience: .* 1, got 0"),
        ({"hyperparameters": "lihtbm.num_leaves=31"}, ConfigError, "^hyperparameters: unknown model 'lihtbm'; did you"),
        ({"stopping": "lihtbm.patience=3"}, ConfigError, "^stopping: unknown model 'lihtbm'; did you mean lightgbm"),
        ({"hyperparameters": {"lightgbm": 3}}, ConfigError, "^hyperparameters.lightgbm: expected a mapping .* got 3"),
        ({"stopping": [1]}, ConfigError, r"stopping: .* got \[1\]"),
        ({"stopping": {"lightgbm": 3}}, ConfigError, "stopping.lightgbm: .* got 3"),
        ({"stopping": {"lightgbm": {"patience": True}}}, ConfigError, "stopping.lightgbm.patience: .* got True"),
        (
            {"stopping": {"lightgbm": {"overfitting": {"gpa": 0.2}}}},
            ConfigError,
            "stopping.lightgbm.overfitting.gpa: unknown key; did you mean gap?",
        ),
        ({"train": SEGMENTS["train"]}, ConfigError, "only train given; give train, valid and test together"),
        ({**SEGMENTS, "valid": "2016-06-01:2017-12-31"}, ConfigError, "overlap"),
        ({**SEGMENTS, "test": "2018-12-31:2018-01-01"}, ConfigError, "is after last day"),
        ({**SEGMENTS, "test": "2018-01-01"}, ConfigError, "^test: expected first:last, such as .* got '2018-01-01'"),
        ({**SEGMENTS, "train": "2015-01-01:yesterday"}, ConfigError, "^train: expected first:last"),
        ({**SEGMENTS, "test": "2019-01-01:2019-12-31"}, ConfigError, r"segments.test .*: holds 0 trading days.*choose"),
        (
            {**SEGMENTS, "test": "2018-01-01:2019-12-31"},
            ConfigError,
            "segments.test: ends 2019-12-31, after",
        ),
        ({**SEGMENTS, "valid": "2017-01-01:2017-01-31", "horizon": 60}, ConfigError, "0 days have one.*lower horizon"),
        (
            {"hyperparameters": {"lightgbm": {"num_leafs": 3}}},
            ConfigError,
            "lightgbm.num_leafs: unknown; did you mean",
        ),
        ({"hyperparameters": {"linaer": {}}}, ConfigError, "unknown model 'linaer'; did you mean linear"),
        ({"stopping": {"lightgbm": {"patience": 0}}}, ConfigError, "stopping.lightgbm.patience: .* 1, got 0"),
        ({"stopping": {"lightgbm": {"patients": 9}}}, ConfigError, "stopping.lightgbm.patients: unknown.*patience"),
        ({"deployment_strategy": "big_bang"}, ConfigError, "^deployment_strategy: expected one of .* got 'big_bang'"),
        ({"feature_set": 158}, ConfigError, "^feature_set: expected a text, got 158"),
        ({"feature_set": "alpha185"}, ConfigError, "unknown feature set 'alpha185'; did you mean alpha158"),
    ],
)
def test_a_bad_form_is_refused_with_the_key_and_the_remedy(tmp_path, form, error, message):
    """Nothing is computed for a plan that cannot work."""
    with pytest.raises(error, match=message):
        plan(tmp_path, **form)


def test_a_plan_overrides_hyper_parameters_and_stopping_of_its_models(tmp_path):
    """What it says counts for the model that it names; all else is the entry's."""
    form = {"hyperparameters": {"lightgbm": {"num_leaves": 31.0}}, "stopping": {"lightgbm": {"metric": "rank_ic"}}}
    made = plan(tmp_path, **form)
    typed = {"hyperparameters": "lightgbm.num_leaves = 31", "stopping": "# by order\n\nlightgbm.metric=rank_ic"}
    assert plan(tmp_path, **typed) == made
    config = made.config("lightgbm")
    assert config.hyperparameters["num_leaves"] == 31 and isinstance(config.hyperparameters["num_leaves"], int)
    assert (config.stopping.metric, config.stopping.patience) == ("rank_ic", 50)
    assert made.config("linear").stopping.metric == "loss"


def test_a_plan_comes_back_from_json_and_takes_no_text_for_a_number(tmp_path):
    """Dates are texts in JSON, numbers are not; a whole number of a form may have a fraction of 0."""
    made = plan(tmp_path, horizon=5.0)
    assert made.horizon == 5
    content = made.model_dump(mode="json")
    assert RunPlan.model_validate(content) == made
    for key, wrong in {"horizon": "5", "seed": True, "topk": 50.5, "n_drop": "5"}.items():
        with pytest.raises(ValueError, match=key):
            RunPlan.model_validate({**content, key: wrong})


def test_numbers_of_the_settings_may_come_from_the_environment(tmp_path):
    """Where all values are texts."""
    environ = {"MLOPS_HOME": str(tmp_path), "MLOPS_TRAINING__HORIZON": "3", "MLOPS_PORTFOLIO__TOPK": "7"}
    made = make_plan(load_settings(environ), "v1", CALENDAR, {})
    assert (made.horizon, made.topk) == (3, 7)


def test_too_short_a_history_is_refused():
    """Three segments need some days each."""
    with pytest.raises(TrainingError, match="sync more history"):
        rolling_segments(CALENDAR[:50], 1)
