"""Which searches a training comes from: of its runs, not of its folder."""

from mlops_tasks.files import read_json
from mlops_tasks.state.trials import studies_of
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import make_plan


def test_a_search_that_chooses_what_is_trained_already_is_known(market):
    """The run finds the training that one without a study left, and the training comes from the study all the same."""
    engine = UnifiedQlibTrainingEngine(market.settings)
    plan = make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), {})
    trained = engine.train(plan, market.feature_version, "linear")
    assert studies_of(market.settings, trained.name) == ()
    assert engine.train(plan.model_copy(update={"study": "s"}), market.feature_version, "linear") == trained
    assert studies_of(market.settings, trained.name) == ("s",)
    assert "study" not in read_json(trained / "plan.json")
