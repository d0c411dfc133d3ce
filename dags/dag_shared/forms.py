"""Fields shared by several forms. Their schemas check little; `plan_run` and `plan_search` check the rest in words."""

from airflow.sdk import Param

from dag_shared.default_args import SETTINGS
from mlops_tasks.features.sets import feature_set_names
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.states import Approval

MODELS = list(model_zoo(SETTINGS))
SEE_MODELS = "*Browse > Zoo* describes them."
STRATEGIES = (
    "`blue_green`: loaded beside the champion, checked, then switched to; waits for a rollout under way. `canary`: "
    "serves a growing share of the clients. `shadow`: scores beside the champion, never serves. `direct`: like "
    "`blue_green`, without waiting."
)
APPROVAL = "`before_deploy`: Airflow asks under *Required actions* and waits at most `deployment.approval_h` hours."
OVERRIDES = "One `model.name=value` per line, such as"


def feature_set_param(section: str) -> Param:
    """A feature set: built in, shipped, or the user's own."""
    return Param(
        SETTINGS.features.feature_set,
        type="string",
        enum=list(dict.fromkeys([SETTINGS.features.feature_set, *feature_set_names(SETTINGS)])),
        title="Feature set",
        section=section,
        description_md="Built in, from include/config/feature_sets.yaml, or from your feature_sets.yaml in MLOPS_HOME.",
    )


def horizon_param(section: str) -> Param:
    """The label's horizon in trading days."""
    return Param(
        SETTINGS.training.horizon,
        type="integer",
        minimum=1,
        maximum=60,
        title="Horizon (trading days)",
        section=section,
        description_md="The label is close(t+1+horizon) / close(t+1) - 1; t+1 is the first tradable close.",
    )


def seed_param(section: str) -> Param:
    """The random seed, which makes a run repeatable."""
    return Param(SETTINGS.training.seed, type="integer", minimum=0, title="Seed", section=section)


def segment_params() -> dict[str, Param]:
    """Date ranges of the three segments."""
    titles = {"train": "Training dates", "valid": "Validation dates", "test": "Test dates"}
    text = "`first:last`, e.g. `2017-01-01:2020-08-31`. Give all three, or none for rolling 60/20/20."
    return {
        name: Param(None, type=["null", "string"], title=title, section="Segments", description_md=text)
        for name, title in titles.items()
    }


def lines_param(title: str, section: str, description: str) -> Param:
    """A multi-line text field, empty for none.

    A JSON field will not do: in Airflow's JSON editor the page's keyboard shortcuts swallow letters, and the editor
    reformats what is typed.
    """
    return Param(
        None, type=["null", "string"], format="multiline", title=title, section=section, description_md=description
    )


def hyperparameters_param() -> Param:
    """Overrides of the zoo's hyper-parameters."""
    text = f"{OVERRIDES} `lightgbm.num_leaves=31`. Names, defaults and limits of every model: *Browse > Zoo*."
    return lines_param("Hyper-parameters", "Hyper-parameters", text)


def stopping_param() -> Param:
    """Overrides of early stopping and of the overfitting detector."""
    text = (
        f"{OVERRIDES} `lightgbm.patience=30`. Names: `metric` (loss, ic, rank_ic), `patience` (iterations), "
        "`min_delta`, `overfitting.action` (note, stop), `overfitting.metric`, `overfitting.gap`, `overfitting.window`."
    )
    return lines_param("Early stopping", "Advanced", text)


def approval_param(**given: str) -> Param:
    """Whether a person must approve the deployment."""
    return Param(
        SETTINGS.deployment.approval.value,
        enum=[each.value for each in Approval],
        title="Approval",
        description_md=APPROVAL,
        **given,
    )


def machine_params(owner: str) -> dict[str, Param]:
    """How a run's trainings share the machine with other trainings."""
    return {
        "owner": Param(
            owner,
            type="string",
            pattern=r"^[\w.@-]{1,64}$",
            title="Owner",
            section="Machine",
            description_md="Owners share the machine according to `training.owner_weights`.",
        ),
        "priority": Param(
            0,
            type="integer",
            minimum=-100,
            maximum=100,
            title="Priority",
            section="Machine",
            description_md="Among the owner's waiting trainings, higher priorities start first.",
        ),
    }
