"""Which arm of an experiment a unit belongs to: sticky, in exact proportions, independent of other experiments.

A unit (a client, an account, an instrument, a sleeve of capital, a day) has a position in its layer. The experiments of
a layer hold ranges of its positions that do not overlap, so a unit is in one of them at most; positions in different
layers are independent, so experiments in different layers do not interfere. Within an experiment a second position,
independent of the first, chooses the arm. A larger exposure takes in new units and moves none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError, NoExperimentError, excerpt, hint
from mlops_tasks.experiments.day_schedule import DaySchedule
from mlops_tasks.experiments.hashing import SPACE, positions
from mlops_tasks.states import UnitKind


class Reason(StrEnum):
    """Why a unit has its arm, or none."""

    ASSIGNED = "assigned"
    OVERRIDDEN = "overridden"
    """A person chose the arm; such units are left out of an analysis."""
    HELD_OUT = "held_out"
    """It takes part in no experiment of its layer."""
    OTHER_EXPERIMENT = "other_experiment"
    """Its position in the layer is not of this experiment's range."""
    NOT_EXPOSED = "not_exposed"
    """It is of this experiment's range, and a larger exposure will take it in."""
    NOT_SCHEDULED = "not_scheduled"
    """It is no day of this experiment's schedule."""


_REASONS = tuple(Reason)


@dataclass(frozen=True)
class Segment:
    """Positions from `first` to `end` - 1, which belong to one arm."""

    first: int
    end: int
    arm: str

    @property
    def width(self) -> int:
        """Number of positions."""
        return self.end - self.first


@dataclass(frozen=True)
class Allocation:
    """Which positions belong to which arm. Together the segments cover all positions once."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        at = 0
        for segment in self.segments:
            if segment.first != at or segment.width <= 0:
                raise ExperimentError(f"arms: the segment of {segment.arm} begins at {segment.first}, expected {at}")
            at = segment.end
        if at != SPACE:
            raise ExperimentError(f"arms: the segments end at {at}, expected {SPACE}")

    @classmethod
    def of(cls, shares: Mapping[str, Decimal | float | str]) -> Self:
        """Arms side by side, in the order given.

        Raises
        ------
        ExperimentError
            Fewer than two arms, an arm without a name, a share that is not positive or not a whole number of
            millionths, or shares that do not sum to 1.
        """
        segments, at = [], 0
        for arm, width in _widths(shares).items():
            segments.append(Segment(at, at + width, arm))
            at += width
        return cls(tuple(segments))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order in which they first appear."""
        return tuple(dict.fromkeys(segment.arm for segment in self.segments))

    @property
    def shares(self) -> dict[str, Decimal]:
        """Each arm's share of the units."""
        return {arm: Decimal(sum(each.width for each in self.segments if each.arm == arm)) / SPACE for arm in self.arms}

    def codes_of(self, at: NDArray[np.int64]) -> NDArray[np.int8]:
        """The place in `arms` of each position."""
        place = {arm: code for code, arm in enumerate(self.arms)}
        codes = np.array([place[segment.arm] for segment in self.segments], np.int8)
        return codes[np.searchsorted([segment.end for segment in self.segments], at, side="right")]


def _widths(shares: Mapping[str, Decimal | float | str]) -> dict[str, int]:
    if len(shares) < 2:
        raise ExperimentError(f"arms: {len(shares)} of them; an experiment compares at least two")
    widths = {}
    for arm, share in shares.items():
        if not arm or arm != arm.strip() or not arm.isprintable():
            raise ExperimentError(f"arms: {excerpt(arm)} is no name; use printable text without outer blanks")
        widths[arm] = _width(f"the share of {excerpt(arm)}", share)
    if (total := sum(widths.values())) != SPACE:
        raise ExperimentError(f"arms: the shares sum to {Decimal(total) / SPACE}, not to 1: {_told(shares)}")
    return widths


def _told(shares: Mapping[str, Decimal | float | str]) -> str:
    return ", ".join(f"{excerpt(arm)} {share}" for arm, share in shares.items())


def _width(what: str, share: Decimal | float | str, least: int = 1) -> int:
    """A share as a number of positions."""
    try:
        exact = Decimal(str(share))
        width = exact * SPACE
        if not least <= width <= SPACE or width != int(width):
            raise ValueError
    except (ArithmeticError, ValueError):
        low = "0" if least == 0 else "above 0"
        raise ExperimentError(f"{what} is {share}; expected {low} to 1, in whole millionths, e.g. 0.25") from None
    return int(width)


@dataclass(frozen=True)
class Layer:
    """A population of units, split between experiments that exclude each other."""

    name: str
    salt: str
    unit: UnitKind
    held_out: Decimal = Decimal(0)
    """Share of the units that take part in no experiment of this layer. If it grows, it takes in further units."""

    def __post_init__(self) -> None:
        if not self.name or not self.salt:
            raise ExperimentError(f"layer {excerpt(self.name)}: a layer has a name and a salt")
        if _width(f"layer {excerpt(self.name)}: held_out", self.held_out, least=0) == SPACE:
            raise ExperimentError(f"layer {excerpt(self.name)}: all units are held out; hold out less than 1")

    @property
    def holdout_salt(self) -> str:
        """Makes the holdout independent of the positions, so that every experiment loses the same share to it."""
        return f"{self.salt}\0held out"


@dataclass(frozen=True)
class Enrolment:
    """The traffic of one experiment."""

    experiment: str
    salt: str
    layer: str
    first: int
    """The layer's positions from `first` to `end` - 1 are this experiment's."""
    end: int
    allocation: Allocation
    exposure: Decimal = Decimal(1)
    """Share of the range that takes part so far; ramp up by raising it."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Arm by unit, chosen by a person."""
    schedule: DaySchedule | None = None
    """Of a switchback that has started: it decides alone."""

    def __post_init__(self) -> None:
        where = f"experiment {excerpt(self.experiment)}"
        if not self.experiment or not self.salt:
            raise ExperimentError(f"{where}: an experiment has a name and a salt")
        if not 0 <= self.first < self.end <= SPACE:
            raise ExperimentError(f"{where}: positions {self.first} to {self.end}; expected a range in 0 to {SPACE}")
        _width(f"{where}: exposure", self.exposure, least=0)
        for unit, arm in self.overrides.items():
            if arm not in self.allocation.arms:
                raise ExperimentError(
                    f"{where}: unit {excerpt(unit)} is overridden to {excerpt(arm)}; {hint(arm, self.allocation.arms)}"
                )

    @property
    def exposed(self) -> int:
        """The positions from `first` to here take part."""
        return self.first + int(self.exposure * (self.end - self.first))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_json`."""
        segments = [[each.first, each.end, each.arm] for each in self.allocation.segments]
        return {
            **vars(self),
            "allocation": segments,
            "exposure": str(self.exposure),
            "overrides": {**self.overrides},
            "schedule": None if self.schedule is None else self.schedule.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Errors as on construction."""
        allocation = Allocation(tuple(Segment(*each) for each in values["allocation"]))
        schedule = values.get("schedule")
        return cls(
            **{
                **values,
                "allocation": allocation,
                "exposure": Decimal(values["exposure"]),
                "schedule": None if schedule is None else DaySchedule.from_json(schedule),
            }
        )

    def ramped_to(self, exposure: Decimal) -> Self:
        """The same with a larger share of its range exposed.

        Raises
        ------
        ExperimentError
            It is smaller than now: units would leave in the middle of the experiment.
        """
        if exposure < self.exposure:
            raise ExperimentError(
                f"experiment {excerpt(self.experiment)}: exposure {exposure} is less than {self.exposure}; units that "
                "take part stay until the experiment ends. Stop it instead"
            )
        return replace(self, exposure=exposure)


@dataclass(frozen=True)
class Assignments:
    """The arms of a list of units, in their order."""

    arms: tuple[str, ...]
    codes: NDArray[np.int8]
    """Place in `arms`; -1: takes no part. Shape (units,)."""
    reasons: NDArray[np.int8]
    """Place in `Reason`'s order; shape (units,)."""

    def arm_of(self, row: int) -> str | None:
        """The arm of one unit; None: it takes no part."""
        code = int(self.codes[row])
        return None if code < 0 else self.arms[code]

    def reason_of(self, row: int) -> Reason:
        """Why."""
        return _REASONS[self.reasons[row]]

    def counts(self) -> dict[str, int]:
        """Units by arm that were assigned; overridden ones are not counted."""
        assigned = self.codes[self.reasons == _REASONS.index(Reason.ASSIGNED)]
        return dict(zip(self.arms, np.bincount(assigned, minlength=len(self.arms)).tolist(), strict=True))


@dataclass(frozen=True)
class TrafficPlan:
    """All layers and the experiments that share them.

    Raises
    ------
    ExperimentError
        Two layers or experiments share a name or a salt, an experiment's layer is unknown, or ranges overlap.
    """

    layers: tuple[Layer, ...]
    enrolments: tuple[Enrolment, ...] = ()

    def __post_init__(self) -> None:
        _refuse_twins("layer", [(layer.name, layer.salt) for layer in self.layers])
        _refuse_twins("experiment", [(each.experiment, each.salt) for each in self.enrolments])
        for shared in {layer.salt for layer in self.layers} & {each.salt for each in self.enrolments}:
            raise ExperimentError(
                f"salt {excerpt(shared)} belongs to a layer and to an experiment: the arm would follow from the "
                "position. Give each a salt of its own"
            )
        for each in self.enrolments:
            if each.layer not in self._layers:
                raise ExperimentError(
                    f"experiment {excerpt(each.experiment)}: no layer {excerpt(each.layer)}; "
                    + hint(each.layer, self._layers)
                )
        for before, after in self._neighbours():
            if after.first < before.end:
                raise ExperimentError(
                    f"experiments {before.experiment} and {after.experiment} overlap in layer {after.layer}: positions "
                    f"{after.first} to {min(before.end, after.end) - 1} belong to both. Put one of them into another "
                    "layer, or give it a range that is free"
                )

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def _enrolments(self) -> dict[str, Enrolment]:
        return {each.experiment: each for each in self.enrolments}

    def _neighbours(self) -> Iterable[tuple[Enrolment, Enrolment]]:
        ordered = sorted(self.enrolments, key=lambda each: (each.layer, each.first))
        widest: dict[str, Enrolment] = {}
        for each in ordered:
            if each.layer in widest:
                yield widest[each.layer], each
            widest[each.layer] = max(widest.get(each.layer, each), each, key=lambda one: one.end)

    def free_range(self, layer: str, share: Decimal) -> tuple[int, int]:
        """The first range of a layer's positions that is free and as wide as a share of it.

        Raises
        ------
        ExperimentError
            There is none.
        """
        width, at = _width(f"layer {excerpt(layer)}: share", share), 0
        for each in sorted((each for each in self.enrolments if each.layer == layer), key=lambda each: each.first):
            if each.first - at >= width:
                break
            at = each.end
        if at + width > SPACE:
            raise ExperimentError(
                f"layer {excerpt(layer)} has no free range of {share}; experiments hold "
                + ", ".join(f"{each.experiment} {each.first} to {each.end - 1}" for each in self.enrolments)
                + ". Wait for one to end, take a smaller share, or use another layer"
            )
        return at, at + width

    def assign(self, experiment: str, units: Sequence[str], groups: Sequence[str] | None = None) -> Assignments:
        """The arm of each unit in an experiment.

        Parameters
        ----------
        units
            Names, each as its layer's kind of unit is named; days as ISO dates.
        groups
            Of each unit, the name of what it is assigned with (the client of an account, say): units of one group have
            the same arm. None: each unit for itself. Overrides go by the unit.

        Raises
        ------
        ExperimentError
            The experiment is unknown, a unit has no name, or there are not as many groups as units.
        """
        if (enrolment := self._enrolments.get(experiment)) is None:
            known = hint(experiment, self._enrolments) if self._enrolments else "none is running"
            raise NoExperimentError(f"no experiment {excerpt(experiment)}; {known}")
        if groups is not None and len(groups) != len(units):
            raise ExperimentError(f"{len(units)} units and {len(groups)} groups; give each unit its group")
        if enrolment.schedule is not None:
            codes = enrolment.schedule.codes(enrolment.salt, units)
            why = np.where(codes < 0, _REASONS.index(Reason.NOT_SCHEDULED), _REASONS.index(Reason.ASSIGNED))
            return Assignments(enrolment.allocation.arms, codes, why.astype(np.int8))
        drawn, layer = units if groups is None else groups, self._layers[enrolment.layer]
        at = positions(layer.salt, drawn)
        codes = enrolment.allocation.codes_of(positions(enrolment.salt, drawn))
        reasons = np.full(len(at), _REASONS.index(Reason.ASSIGNED), np.int8)
        reasons[at >= enrolment.exposed] = _REASONS.index(Reason.NOT_EXPOSED)
        reasons[(at < enrolment.first) | (at >= enrolment.end)] = _REASONS.index(Reason.OTHER_EXPERIMENT)
        if layer.held_out:
            held = positions(layer.holdout_salt, drawn) < int(layer.held_out * SPACE)
            reasons[held] = _REASONS.index(Reason.HELD_OUT)
        codes[reasons != _REASONS.index(Reason.ASSIGNED)] = -1
        if enrolment.overrides:
            arms = enrolment.allocation.arms
            for row, unit in enumerate(units):
                if (arm := enrolment.overrides.get(unit)) is not None:
                    codes[row], reasons[row] = arms.index(arm), _REASONS.index(Reason.OVERRIDDEN)
        return Assignments(enrolment.allocation.arms, codes, reasons)


def _refuse_twins(what: str, named: Sequence[tuple[str, str]]) -> None:
    names: set[str] = set()
    salts: dict[str, str] = {}
    for name, salt in named:
        if name in names:
            raise ExperimentError(f"two {what}s are called {excerpt(name)}; give each a name of its own")
        if salt in salts:
            raise ExperimentError(
                f"{what}s {excerpt(salts[salt])} and {excerpt(name)} share a salt: their units would go together. Give "
                "each a salt of its own"
            )
        names.add(name)
        salts[salt] = name
