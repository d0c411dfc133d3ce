"""What is registered of an experiment before it begins: its question, its metrics, its units and its length."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from mlops_tasks.config import Section, read_settings_file
from mlops_tasks.errors import ExperimentError, excerpt, hint
from mlops_tasks.experiments.assignment import Allocation
from mlops_tasks.experiments.inference.offers import Case, Looks, refusal
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.experiments.inference.switchback import Switchback

NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
"""Names of experiments, layers and metrics."""
ARM = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Names of arms."""


PLAIN = r"^[^\x00]*$"
"""Texts that every database stores."""
Share = Annotated[Decimal, Field(max_digits=18, decimal_places=17)]
"""In whole millionths."""
VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]


class Direction(StrEnum):
    """Which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"


class MetricSource(StrEnum):
    """Where the daily values of a metric come from."""

    EVENTS = "events"
    """Metric events that clients send."""
    PREDICTIONS = "predictions"
    """The prediction log: the scores of each arm's version, once their outcome is known."""


class PredictionMetric(StrEnum):
    """Metrics that are computed from the prediction log; `prediction_metrics.py` says how."""

    IC = "ic"
    RANK_IC = "rank_ic"
    HIT_RATE = "hit_rate"
    TOP_RETURN = "top_return"
    PORTFOLIO_RETURN = "portfolio_return"
    PORTFOLIO_COST = "portfolio_cost"
    TURNOVER = "turnover"


PORTFOLIO_METRICS = frozenset(
    {PredictionMetric.PORTFOLIO_RETURN, PredictionMetric.PORTFOLIO_COST, PredictionMetric.TURNOVER}
)
"""Those of the portfolio that the scores would have held."""


class MetricDesign(Section):
    """A metric that decides the experiment, or guards it."""

    name: str = Field(pattern=NAME)
    source: MetricSource = MetricSource.EVENTS
    better: Direction = Direction.HIGHER
    smallest_effect: float = Field(gt=0, allow_inf_nan=False, strict=True)
    """In the metric's unit: the least difference that the experiment should find, or the least harm to a guard that
    stops it."""

    @model_validator(mode="after")
    def _is_computed(self) -> Self:
        if self.source is MetricSource.EVENTS or self.name in set(PredictionMetric):
            return self
        if self.name == "drawdown":
            raise ValueError(
                "drawdown is a statistic of the whole path and has no daily values to test; name portfolio_return, "
                "and the analysis describes the drawdown beside it"
            )
        raise ValueError(f"no metric {excerpt(self.name)} of predictions; {hint(self.name, PredictionMetric)}")


class SwitchbackDesign(Section):
    """Days as units: one arm serves for a block of days, then the other, and a coin says which one begins."""

    block: int = Field(ge=1, le=60, strict=True)
    """Market days of a block."""
    washout: int = Field(ge=0, le=60, strict=True)
    """Market days at the beginning of each block that are left out: as long as an arm may act after its last day."""


class ExperimentDesign(Section):
    """An experiment as it is registered."""

    name: str = Field(pattern=NAME)
    owner: str = Field(min_length=1, max_length=64, pattern=PLAIN)
    hypothesis: str = Field(min_length=10, max_length=2000, pattern=PLAIN)
    """What is expected, and why; one or two sentences."""
    layer: str = Field(pattern=NAME)
    share: Share = Field(Decimal(1), gt=0, le=1)
    """Of the layer's units."""
    arms: Mapping[Annotated[str, Field(pattern=ARM)], Share] = Field(max_length=64)
    """Share by arm; the first is the control."""
    models: Mapping[str, VersionNumber] = {}
    """Registered version by arm, where the arms are models; one for every arm, or none."""
    primary: MetricDesign
    guards: tuple[MetricDesign, ...] = Field((), max_length=64)
    planned_days: int = Field(ge=2, le=1260, strict=True)
    """Market days until the last look."""
    looks: Looks = Looks.ONE
    """How often it is looked at until then, with the power to stop it."""
    method: Method | None = None
    """Of the daily differences; None: the most powerful one that keeps its level for every kind of days that was
    measured. Cosine terms (`paired`, `obrien_fleming`, `pocock`) also where an advantage comes and goes by regimes."""
    alpha: float = Field(0.05, gt=0, le=0.2, strict=True)
    """Two-sided level of the primary metric's test, over all looks."""
    power: float = Field(0.8, ge=0.5, lt=1, strict=True)
    """Wanted probability of finding the smallest effect."""
    switchback: SwitchbackDesign | None = None
    """Of an experiment whose units are days, and of no other."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        Allocation.of(self.arms)
        if self.models and set(self.models) != set(self.arms):
            missing = ", ".join(sorted(set(self.arms) ^ set(self.models)))
            raise ValueError(f"models: {missing}; name a registered version for every arm and for nothing else")
        if len(set(self.models.values())) < len(self.models):
            raise ValueError("models: two arms have the same version; a model is compared with another one")
        if self.method is not None:
            self._check_method(self.method)
        names = [metric.name for metric in self.metrics]
        if twins := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"metric {twins[0]} is named twice; a metric is the primary one or a guard, once")
        computed = [metric.name for metric in self.metrics if metric.source is MetricSource.PREDICTIONS]
        if computed and not self.models:
            raise ValueError(f"{computed[0]} is computed from the scores of models; name each arm's version in models")
        if self.switchback is not None:
            self._check_switchback(computed)
        return self

    def _check_switchback(self, computed: list[str]) -> None:
        if computed:
            raise ValueError(
                f"{computed[0]} compares both versions on every day, which finds more than switching between them; "
                "leave out switchback, and take a layer of another kind of unit"
            )
        if list(self.arms.values()) != [Decimal("0.5")] * 2 or self.share != 1:
            raise ValueError("switchback: a coin chooses between two arms; give each a share of 0.5, of all days")
        if self.looks is not Looks.ONE:
            raise ValueError("switchback: the randomisation test is made once, at the planned end; set looks to one")
        days = self.plan_of_days
        if days is not None and self.planned_days % (pair := 2 * days.block):
            whole = self.planned_days // pair * pair
            raise ValueError(
                f"switchback: {self.planned_days} planned days are no whole pairs of blocks of {days.block}; plan "
                f"{whole} or {whole + pair}"
            )

    @property
    def plan_of_days(self) -> Switchback | None:
        """How days are switched between the arms; None where days are not the units.

        Raises
        ------
        ExperimentError
            Too few pairs of blocks, or blocks that are all washout.
        """
        if self.switchback is None:
            return None
        return Switchback(self.planned_days, self.switchback.block, self.switchback.washout)

    def _check_method(self, method: Method) -> None:
        if self.switchback is not None:
            raise ValueError("method: a switchback is tested by its own assignment; leave it out")
        if (reason := refusal(method, Case(self.planned_days, self.looks))) is not None:
            raise ValueError(f"method: {reason}")

    @property
    def metrics(self) -> tuple[MetricDesign, ...]:
        """The primary one first."""
        return (self.primary, *self.guards)

    @property
    def unit_metric(self) -> MetricDesign | None:
        """The first metric of events, by which units are counted; None where all are computed."""
        return next((each for each in self.metrics if each.source is MetricSource.EVENTS), None)

    @property
    def control(self) -> str:
        """The arm that others are compared with."""
        return next(iter(self.arms))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_json`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """A design from plain values.

        Raises
        ------
        ExperimentError
            A field is missing, unknown or wrong; all of them are named.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc'])) or 'design'}: {each['msg']}" for each in error.errors()]
            raise ExperimentError(f"experiment {excerpt(str(values.get('name', '')))}: {'; '.join(faults)}") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """A design from a YAML file. Errors as for `from_json`, and `ConfigError` if it is no mapping."""
        return cls.from_json(read_settings_file(path))
