"""Fields that several forms have. Their schemas are small: `plan_run` and `plan_search` check the rest, in words."""

from airflow.sdk import Param

from dag_shared.default_args import SETTINGS
from mlops_tasks.features.sets import feature_set_names
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.states import Approval

MODELS = list(model_zoo(SETTINGS))
SEE_MODELS = "*Browse > Models* describes them."
STRATEGIES = (
    "`blue_green`: loaded beside the champion, checked, switched to; it waits for a rollout under way. `canary`: for a "
    "growing share of the clients. `shadow`: scores beside the champion, never serves. `direct`: as `blue_green`, at "
    "once."
)
APPROVAL = "`before_deploy`: Airflow asks under *Required actions* first, and waits `deployment.approval_h` at most."
OVERRIDES = "One `model.name=value` a line, such as"


def feature_set_param(section: str) -> Param:
    """A set that is built in, shipped or the user's own."""
    return Param(
        SETTINGS.features.feature_set,
        type="string",
        enum=list(dict.fromkeys([SETTINGS.features.feature_set, *feature_set_names(SETTINGS)])),
        title="Feature set",
        section=section,
        description_md="Built in, of include/config/feature_sets.yaml, or of your feature_sets.yaml in MLOPS_HOME.",
    )


def horizon_param(section: str) -> Param:
    """Trading days of the label."""
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
    """What makes a run repeatable."""
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
    """A text of several lines, empty for none.

    A field for JSON will not do: in Airflow's editor for it the page's own keys take letters, and it formats what is
    typed.
    """
    return Param(
        None, type=["null", "string"], format="multiline", title=title, section=section, description_md=description
    )


def hyperparameters_param() -> Param:
    """Overrides of the zoo's hyper-parameters."""
    text = f"{OVERRIDES} `lightgbm.num_leaves=31`. Names, defaults and limits of every model: *Browse > Models*."
    return lines_param("Hyper-parameters", "Hyper-parameters", text)


def stopping_param() -> Param:
    """Overrides of early stopping and of the overfitting detector."""
    text = (
        f"{OVERRIDES} `lightgbm.patience=30`. Names: `metric` (loss, ic, rank_ic), `patience` (iterations), "
        "`min_delta`, `overfitting.action` (note, stop), `overfitting.metric`, `overfitting.gap`, `overfitting.window`."
    )
    return lines_param("Early stopping", "Advanced", text)


def approval_param(**given: str) -> Param:
    """Whether a person is asked before the deployment."""
    return Param(
        SETTINGS.deployment.approval.value,
        enum=[each.value for each in Approval],
        title="Approval",
        description_md=APPROVAL,
        **given,
    )


def machine_params(owner: str) -> dict[str, Param]:
    """How a run's trainings share the machine with others."""
    return {
        "owner": Param(
            owner,
            type="string",
            pattern=r"^[\w.@-]{1,64}$",
            title="Owner",
            section="Machine",
            description_md="Owners share the machine by `training.owner_weights`.",
        ),
        "priority": Param(
            0,
            type="integer",
            minimum=-100,
            maximum=100,
            title="Priority",
            section="Machine",
            description_md="Of the owner's trainings that wait, a higher one goes first.",
        ),
    }
