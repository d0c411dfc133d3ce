"""The life of experiments: registered, started, ramped up, paused, stopped and decided, with who, when and why.

Every change is a row of the state database that also contains all that was known before, so what an experiment was at
any time can be read. A design does not change once the experiment has started.

An experiment whose arms are models reserves a look of the gate's yearly budget when it starts (`evaluation/looks.py`).
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Self

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import acting
from mlops_tasks.errors import ExperimentError, NoExperimentError, excerpt, first_few, hint
from mlops_tasks.evaluation.looks import PlannedExperiment, Reservation, Wait, reserve_look
from mlops_tasks.experiments.assignment import Allocation, Enrolment, Layer, TrafficPlan
from mlops_tasks.experiments.day_schedule import DaySchedule, calendar_of
from mlops_tasks.experiments.design import ExperimentDesign
from mlops_tasks.experiments.inference.offers import Looks, first_look
from mlops_tasks.registry.looks_ledger import ledger_of, market_today
from mlops_tasks.state.experiments import Layers, Steps, add_row, add_rows, add_start, newest, steps_of
from mlops_tasks.state.looks import LookRows
from mlops_tasks.state.tables import ExperimentLayer, ExperimentStep, now
from mlops_tasks.states import EXPERIMENT_TRANSITIONS, ExperimentState, UnitKind

HOLDS_UNITS = (ExperimentState.DRAFT, ExperimentState.RUNNING, ExperimentState.PAUSED)
"""States in which the units of an experiment are its own."""


@dataclass(frozen=True)
class Experiment:
    """An experiment as one of its steps left it."""

    design: ExperimentDesign
    enrolment: Enrolment
    state: ExperimentState
    winner: str | None
    by: str
    reason: str
    at: datetime
    look: Reservation | None = None
    """Of the gate's budget; None: its arms are no models, or it has not begun."""

    @classmethod
    def of(cls, step: ExperimentStep) -> Self:
        """From a row."""
        return cls(
            design=ExperimentDesign.from_json(step.design),
            enrolment=Enrolment.from_json(step.traffic),
            state=ExperimentState(step.state),
            winner=step.winner,
            by=step.by,
            reason=step.reason,
            at=step.at,
            look=None if step.look is None else Reservation.from_json(step.look),
        )


def create_layer(settings: Settings, name: str, unit: UnitKind, held_out: Decimal = Decimal(0), by: str = "") -> Layer:
    """Register a population of units, or enlarge the holdout of one; `by` as in `move_experiment`.

    Raises
    ------
    ExperimentError
        The holdout would shrink, or the layer has units of another kind.
    """

    def decide(layers: Layers, steps: Steps) -> ExperimentLayer:
        known = layers.get(name)
        layer = Layer(name, secrets.token_hex(16) if known is None else known.salt, unit, held_out)
        if known is not None and known.unit != unit:
            raise ExperimentError(f"layer {name} has units of the kind {known.unit}; create another layer for {unit}")
        if known is not None and held_out < Decimal(known.held_out):
            raise ExperimentError(
                f"layer {name} holds out {known.held_out}; a smaller holdout would mix units that have seen nothing "
                "into experiments that run. Create another layer"
            )
        return ExperimentLayer(name=name, salt=layer.salt, unit=unit, held_out=str(held_out), by=by or acting())

    return _layer(add_row(settings, decide))


def create_experiment(
    settings: Settings, design: ExperimentDesign, by: str = "", registered: Collection[int] | None = None
) -> Experiment:
    """Register an experiment as a draft and reserve its range of the layer; `by` and `registered` as in
    `start_experiment`.

    Raises
    ------
    ExperimentError
        The name is taken, the layer is unknown, it has no free range as wide, or its units are days and the design
        does not switch between the arms, or the other way round; or a version is not registered.
    RegistryError
        Its arms are models, and the registry does not answer.
    """
    _check_models(settings, design, registered)

    def decide(layers: Layers, steps: Steps) -> ExperimentStep:
        if design.name in steps:
            raise ExperimentError(f"there is an experiment {design.name} already; choose another name")
        if design.layer not in layers:
            raise ExperimentError(
                f"experiment {design.name}: no layer {design.layer}; "
                + (hint(design.layer, layers) if layers else "create one: alphaops experiments layer NAME --unit KIND")
            )
        _check_unit(design, _layer(layers[design.layer]))
        first, end = _plan(layers, steps).free_range(design.layer, design.share)
        arms = Allocation.of(design.arms)
        enrolment = Enrolment(design.name, secrets.token_hex(16), design.layer, first, end, arms)
        draft = Experiment(design, enrolment, ExperimentState.DRAFT, None, by or acting(), "registered", now())
        return _step(None, draft)

    return Experiment.of(add_row(settings, decide))


def _check_unit(design: ExperimentDesign, layer: Layer) -> None:
    if design.switchback is None and layer.unit == UnitKind.DAY:
        raise ExperimentError(
            f"experiment {design.name}: on each day of layer {layer.name} one arm serves, so no day compares two; "
            "switch between the arms in blocks: switchback: {block: 5, washout: 1}"
        )
    if design.switchback is not None and (layer.unit != UnitKind.DAY or layer.held_out):
        raise ExperimentError(
            f"experiment {design.name}: a switchback has all days as units, and layer {layer.name} has {layer.unit} "
            f"units, {layer.held_out} held out; take a layer of days: alphaops experiments layer NAME --unit day"
        )


def move_experiment(settings: Settings, name: str, to: ExperimentState, reason: str, by: str = "") -> Experiment:
    """Take an experiment to another state; to `DECIDED`: without a winner.

    Parameters
    ----------
    by
        Who asks for it; default: the DAG or the person that this process works for.

    Raises
    ------
    ExperimentError
        It is unknown, cannot go there from where it is, or no reason is given. It starts, its arms are models, and one
        of them is not registered any more, or the gate's budget has no look left for it.
    RegistryError, StoreError
        It starts, its arms are models, and the registry does not answer, or no vintage is in use.
    """
    if to == ExperimentState.RUNNING:
        return start_experiment(settings, name, reason, by)
    return _changed(settings, name, reason, by, lambda before: _moved(before, to))


def start_experiment(
    settings: Settings, name: str, reason: str, by: str = "", registered: Collection[int] | None = None
) -> Experiment:
    """Start an experiment, or let it go on; the first start of one with models reserves its look.

    Parameters
    ----------
    by
        As in `move_experiment`.
    registered
        The registered versions, for whoever does without MLflow; None: MLflow is asked where arms are models.

    Raises
    ------
    ExperimentError, RegistryError, StoreError
        As `move_experiment`.
    """

    def started(before: Experiment) -> Experiment:
        return _scheduled(settings, _moved(before, ExperimentState.RUNNING))

    known = newest(settings)[1].get(name)
    design = None if known is None or known.look is not None else Experiment.of(known).design
    if design is None or not design.models:
        return _changed(settings, name, reason, by, started)
    _check_models(settings, design, registered)
    market, today = market_today(settings)
    first = design.planned_days if design.looks is Looks.ONE else first_look(design.planned_days)
    wanted = PlannedExperiment(name, today, first)

    def decide(steps: Steps, looks: LookRows) -> ExperimentStep:
        def start(before: Experiment) -> Experiment:
            after = started(before)
            if before.look is not None:  # somebody else was faster, and paused it
                return after
            found = reserve_look(wanted, ledger_of(looks), market, settings.gate)
            if isinstance(found, Wait):
                raise ExperimentError(_no_look(name, found, settings.gate.alpha))
            return replace(after, look=found)

        return _next_step(steps, name, reason, by, start)

    return Experiment.of(add_start(settings, decide))


def _scheduled(settings: Settings, after: Experiment) -> Experiment:
    """A switchback has its days from its first start on."""
    switched = after.design.plan_of_days
    if switched is None or after.enrolment.schedule is not None:
        return after
    schedule = DaySchedule.after(now().date(), switched, calendar_of(settings))
    return replace(after, enrolment=replace(after.enrolment, schedule=schedule))


def decide_experiment(settings: Settings, name: str, winner: str, reason: str, by: str = "") -> Experiment:
    """Name the winner of a stopped experiment. Errors as for `move_experiment`, and an arm that it has not."""

    return _changed(settings, name, reason, by, lambda before: _won(before, winner))


def settle_experiment(settings: Settings, name: str, winner: str, reason: str) -> Experiment:
    """Stop a running experiment and name its winner, both or neither. Errors as for `decide_experiment`."""

    def decide(layers: Layers, steps: Steps) -> list[ExperimentStep]:
        stopped = _next_step(steps, name, reason, "", lambda before: _moved(before, ExperimentState.STOPPED))
        return [stopped, _next_step({name: stopped}, name, reason, "", lambda before: _won(before, winner))]

    return Experiment.of(add_rows(settings, decide)[-1])


def record_verdict(settings: Settings, name: str, verdict: str, said: str) -> Experiment:
    """Record what the gate said of the winner of a decided experiment, in short and in a sentence."""

    def judged(before: Experiment) -> Experiment:
        if before.look is None or before.state != ExperimentState.DECIDED:
            raise ExperimentError(f"experiment {name} has no winner for the gate to judge")
        return replace(before, look=replace(before.look, ended=now().date(), verdict=verdict))

    return _changed(settings, name, said, "", judged)


def ramp_experiment(settings: Settings, name: str, exposure: Decimal, reason: str, by: str = "") -> Experiment:
    """Expose a larger share of an experiment's units. Errors as for `move_experiment` and `Enrolment.ramped_to`."""
    return _rerouted(settings, name, reason, by, lambda enrolment: enrolment.ramped_to(exposure))


def override_units(settings: Settings, name: str, arms: Mapping[str, str], reason: str, by: str = "") -> Experiment:
    """Choose the arms of some units by hand; they are left out of every analysis from now on.

    Errors as for `move_experiment`, and an arm that the experiment has not.
    """
    return _rerouted(
        settings, name, reason, by, lambda enrolment: replace(enrolment, overrides={**enrolment.overrides, **arms})
    )


def experiments(settings: Settings) -> dict[str, Experiment]:
    """All experiments as they stand, by name."""
    return {name: Experiment.of(step) for name, step in newest(settings)[1].items()}


def history_of(settings: Settings, name: str) -> list[Experiment]:
    """An experiment after each of its steps, in order.

    Raises
    ------
    ExperimentError
        There is none of this name.
    """
    if not (steps := steps_of(settings, name)):
        raise NoExperimentError(f"no experiment {excerpt(name)}; {_hint(newest(settings)[1], name)}")
    return [Experiment.of(step) for step in steps]


def started_history(settings: Settings, name: str) -> list[Experiment]:
    """`history_of` an experiment that has been started. Errors as there, and for a draft."""
    history = history_of(settings, name)
    if all(each.state == ExperimentState.DRAFT for each in history):
        raise ExperimentError(f"experiment {name} is a draft; start it: alphaops experiments start {name}")
    return history


def layers(settings: Settings) -> dict[str, Layer]:
    """All layers, by name."""
    return {name: _layer(row) for name, row in newest(settings)[0].items()}


def running_traffic(settings: Settings) -> TrafficPlan:
    """The layers, and the experiments that are running."""
    return _plan(*newest(settings), (ExperimentState.RUNNING,))


def _rerouted(
    settings: Settings, name: str, reason: str, by: str, change: Callable[[Enrolment], Enrolment]
) -> Experiment:
    def reroute(before: Experiment) -> Experiment:
        if before.state not in HOLDS_UNITS:
            raise ExperimentError(f"experiment {name} is {before.state}; its traffic does not change any more")
        if before.design.switchback is not None:
            raise ExperimentError(
                f"experiment {name} switches days by a schedule that was drawn; a day chosen by hand would spoil its "
                "test. Stop it instead"
            )
        return replace(before, enrolment=change(before.enrolment))

    return _changed(settings, name, reason, by, reroute)


def _check_models(settings: Settings, design: ExperimentDesign, registered: Collection[int] | None) -> None:
    if not design.models:
        return
    if registered is None:
        from mlops_tasks.registry.models import versions

        registered = versions(settings)
    for arm, version in design.models.items():
        if version not in registered:
            known = first_few(map(str, sorted(registered))) or "none"
            raise ExperimentError(
                f"experiment {design.name}: arm {arm} is version {version}, which is not registered (registered: "
                f"{known}); correct `models`, and register an experiment of another name if this one is registered"
            )


def _no_look(name: str, wait: Wait, budget: float) -> str:
    return (
        f"experiment {name} would have a winner judged by the gate, and has to reserve a look of its yearly budget of "
        f"{budget:g}, of which {wait.spent:.4f} is spent or reserved; start it in {wait.days} market days, about "
        f"{wait.next_day}, when a look of the last year expires, or decide an experiment that is over; "
        "docs/gate.md says what a larger gate.alpha means"
    )


def _moved(before: Experiment, to: ExperimentState) -> Experiment:
    if to not in EXPERIMENT_TRANSITIONS[before.state]:
        allowed = ", ".join(sorted(EXPERIMENT_TRANSITIONS[before.state])) or "nothing else"
        raise ExperimentError(f"experiment {before.design.name} is {before.state}, and can become {allowed}, not {to}")
    if to == ExperimentState.DECIDED and before.look is not None:
        before = replace(before, look=replace(before.look, ended=now().date()))
    return replace(before, state=to)


def _won(before: Experiment, winner: str) -> Experiment:
    arms = before.design.arms
    if winner not in arms:
        raise ExperimentError(f"experiment {before.design.name} has no arm {excerpt(winner)}; {hint(winner, arms)}")
    return replace(_moved(before, ExperimentState.DECIDED), winner=winner)


def _changed(
    settings: Settings, name: str, reason: str, by: str, change: Callable[[Experiment], Experiment]
) -> Experiment:
    """Record the next step of an experiment."""
    return Experiment.of(add_row(settings, lambda layers, steps: _next_step(steps, name, reason, by, change)))


def _next_step(
    steps: Steps, name: str, reason: str, by: str, change: Callable[[Experiment], Experiment]
) -> ExperimentStep:
    if not reason.strip():
        raise ExperimentError("no reason is given; say why, it is kept with your name")
    if name not in steps:
        raise NoExperimentError(f"no experiment {excerpt(name)}; {_hint(steps, name)}")
    after = change(Experiment.of(steps[name]))
    return _step(steps[name], replace(after, by=by or acting(), reason=reason.strip(), at=now()))


def _step(before: ExperimentStep | None, after: Experiment) -> ExperimentStep:
    """The next row of an experiment; a clock that goes back does not bring its steps out of order."""
    return ExperimentStep(
        experiment=after.design.name,
        sequence=1 if before is None else before.sequence + 1,
        state=after.state,
        design=after.design.to_json(),
        traffic=after.enrolment.to_json(),
        by=after.by,
        reason=after.reason,
        winner=after.winner,
        look=None if after.look is None else after.look.to_json(),
        at=after.at if before is None else max(after.at, before.at),
    )


def _plan(layers: Layers, steps: Steps, states: tuple[ExperimentState, ...] = HOLDS_UNITS) -> TrafficPlan:
    return TrafficPlan(
        tuple(map(_layer, layers.values())),
        tuple(Enrolment.from_json(step.traffic) for step in steps.values() if step.state in states),
    )


def _layer(row: ExperimentLayer) -> Layer:
    return Layer(row.name, row.salt, UnitKind(row.unit), Decimal(row.held_out))


def _hint(steps: Steps, name: str) -> str:
    return hint(name, steps) if steps else "none is registered: alphaops experiments create FILE"
