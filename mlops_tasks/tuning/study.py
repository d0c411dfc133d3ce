"""The configuration of a study, typed and checked; light to import, because DAG files read it."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from mlops_tasks.config import Objective, Pruner, Sampler, Section, Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.files import digest_of
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, zoo_entry

SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
PRUNERS: tuple[Pruner, ...] = get_args(Pruner)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
DIRECTIONS: Mapping[Objective, Literal["maximize", "minimize"]] = {
    "ic": "maximize",
    "rank_ic": "maximize",
    "icir": "maximize",
    "rank_icir": "maximize",
    "turnover": "minimize",
    "drawdown": "minimize",
}

AUTO = "auto"
"""In place of a model's name: of the models that can be searched, the first one that the algorithm selector ranks."""
REPORT = "report.json"
"""In `<home>/tuning/<study>/`; `report.py` says what it holds."""

_BUDGET = {"trials", "time_s", "memory_mb"}


class StudyConfig(Section):
    """One search for the hyper-parameters of one model, on the validation segment alone.

    If it is validated with settings as context, it also knows the user's own models.
    """

    model: str
    objectives: tuple[Objective, ...] = Field(("rank_ic",), min_length=1)
    """The first one decides which trial is finally trained; several are searched for their Pareto front."""
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: int = Field(42, ge=0)
    startup_trials: int = Field(8, ge=2)
    """Trials before the sampler learns from them; the size of NSGA-II's and CMA-ES's generations."""
    folds: int = Field(1, ge=1, le=20)
    """Blocks of the validation segment; the model of each learns from everything before it (walk-forward)."""
    watched_share: float = Field(0.33, gt=0, lt=1)
    """The share of a block's days, from the first, that early stopping watches. Trials are compared on the other days,
    which tell a good trial from a lucky one."""
    fixed: Mapping[str, Any] = {}
    """Hyper-parameters that are not searched, and their values."""
    first: tuple[Mapping[str, Any], ...] = ()
    """Overrides of the defaults that are tried right after the defaults themselves."""
    topk: int = Field(50, ge=1)
    """Names held by the portfolio behind turnover and drawdown; at most a third of the names a day."""
    trials: int = Field(30, ge=1)
    """Configurations in all, whatever their outcome."""
    time_s: float | None = Field(None, gt=0)
    """Training seconds of all trials together."""
    memory_mb: float | None = Field(None, gt=0)
    """Largest estimated peak of one trial's training; a larger one is recorded as failed and not started."""

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "StudyConfig":
        entry = zoo_entry(self.model, (info.context or {}).get("settings"))
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"an objective is named twice in {list(self.objectives)}; name each objective once")
        for overrides in (self.fixed, *self.first):
            entry.resolve(self.model, overrides)
        free = searched(entry, self.fixed)
        if not free:
            raise ValueError(
                f"no hyper-parameter of {self.model} is searched; fix fewer, or give `search` to one in models.yaml"
            )
        if len(self.objectives) > 1:
            if self.pruner != "none":
                raise ValueError(f"pruner {self.pruner!r} needs one objective; choose pruner none, or one objective")
            if self.sampler == "cmaes":
                raise ValueError("sampler 'cmaes' needs one objective; choose nsga2, tpe or gp")
        elif self.pruner != "none" and DIRECTIONS[self.objectives[0]] == "minimize":
            raise ValueError(f"pruner {self.pruner!r} compares ICs, and {self.objectives[0]} is not an IC; choose none")
        if self.sampler == "cmaes":
            words = [name for name, schema in free.items() if schema["search"] == "categorical"]
            if words or len(free) < 2:
                raise ValueError(
                    f"sampler 'cmaes' needs two or more numeric hyper-parameters and no others; {self.model} has "
                    f"{list(free)}, of which {words} are categorical; fix those, or choose tpe"
                )
        if self.pruner == "wilcoxon" and self.folds < 2:
            raise ValueError("pruner 'wilcoxon' compares walk-forward folds; set folds to 2 or more")
        if self.pruner in ("median", "hyperband") and self.folds > 1:
            raise ValueError(
                f"pruner {self.pruner!r} compares the iterations of one training; set folds to 1, or use wilcoxon"
            )
        return self

    @property
    def stopping(self) -> Mapping[str, Any]:
        """How a trial's stopping rule differs from that of its model."""
        return {"valid_share": self.watched_share}

    def name(self, data: Mapping[str, Any]) -> str:
        """The study's name: the same question on the same data is the same study, whatever its budget.

        `data` identifies what is learned from (versions, segments, horizon).
        """
        asked = self.model_dump(mode="json", exclude=_BUDGET)
        return f"{self.model}-{digest_of({'study': asked, 'data': dict(data)}, length=12)}"


def searched(entry: ModelEntry, fixed: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """JSON Schema of each hyper-parameter that a search varies."""
    return {name: schema for name, schema in entry.hyperparameters.items() if "search" in schema and name not in fixed}


def study_config(settings: Settings, form: Mapping[str, Any]) -> StudyConfig:
    """A study from a trigger form: keys are the fields of `StudyConfig`; None or absent: the setting.

    With several objectives the sampler is NSGA-II and nothing is pruned, and a study of several folds prunes by
    Wilcoxon's test, unless the form says otherwise.

    Raises
    ------
    ConfigError
        A key is unknown, or a value is of the wrong type or out of range.
    """
    given = {name: value for name, value in form.items() if value is not None and value not in ("", [])}
    several = len(given.get("objectives", settings.tuning.objectives)) > 1
    fallback: dict[str, Any] = {
        "objectives": settings.tuning.objectives,
        "sampler": "nsga2" if several else settings.tuning.sampler,
        "pruner": "none" if several else ("wilcoxon" if given.get("folds", 1) > 1 else settings.tuning.pruner),
        "trials": settings.tuning.trials,
        "seed": settings.training.seed,
        "topk": settings.portfolio.topk,
    }
    try:
        return StudyConfig.model_validate({**fallback, **given}, context={"settings": settings})
    except ValidationError as error:
        lines = [f"tuning.{'.'.join(map(str, e['loc'])) or 'study'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("bad study; correct the form or the settings: " + "; ".join(lines)) from None
